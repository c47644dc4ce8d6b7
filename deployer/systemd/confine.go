package systemd

import (
	"slices"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// buses lead to who starts programs for others: logind lets every user have a
// manager of units of its own that stays, and that one is confined to nothing.
var buses = [...]string{"/run/dbus", "/run/user"}

// confinement are the properties that keep what an app runs to its own: its user
// keeps it out of most already, these make sure. systemd.exec(5) explains each,
// org.freedesktop.systemd1(5) has their types. A unit's own drop-in can loosen
// them for one app, /etc/systemd/system/scotch-app-NAME-.service.d/local.conf.
//
// Not set are those that break what apps do: MemoryDenyWriteExecute (compilers
// of the running kind, ctypes), PrivateNetwork, PrivateUsers, ProtectHome=yes (an
// interpreter may lie in a home), RestrictSUIDSGID (installers copy modes; with
// no new privileges such a file gives none).
func confinement(writes, hidden []string) []dbus.Property {
	var props []dbus.Property
	set := func(name string, value any) {
		props = append(props, dbus.Property{Name: name, Value: godbus.MakeVariant(value)})
	}
	set("NoNewPrivileges", true)
	set("CapabilityBoundingSet", uint64(0))
	set("PrivateDevices", true)
	set("PrivateTmp", true)
	// Semaphores and the like are the unit's own, and go with it; of System V's and
	// message queues too, whose memory would outlast it and count for nobody.
	set("PrivateIPC", true)
	set("TemporaryFileSystem", []struct{ Path, Options string }{{"/dev/shm", "mode=1777,nosuid,nodev"}})
	set("ProtectProc", "invisible")
	set("ProtectHome", "read-only")
	set("ProtectClock", true)
	set("ProtectControlGroups", true)
	set("ProtectHostname", true)
	set("ProtectKernelLogs", true)
	set("ProtectKernelModules", true)
	set("ProtectKernelTunables", true)
	set("LockPersonality", true)
	set("RestrictRealtime", true)
	set("RestrictNamespaces", uint64(0)) // none may be made
	set("RestrictAddressFamilies", struct {
		Allow    bool
		Families []string
	}{true, []string{"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"}})
	set("SystemCallArchitectures", []string{"native"})
	set("KeyringMode", "private")
	// A core holds secrets, and lies where its program crashed.
	set("LimitCORE", uint64(0))
	set("LimitCORESoft", uint64(0))
	if writes == nil {
		set("ProtectSystem", "full")
	} else {
		set("ProtectSystem", "strict")
		set("ReadWritePaths", optional(writes))
	}
	set("InaccessiblePaths", optional(append(slices.Clone(hidden), buses[:]...)))
	return props
}

// optional marks paths that need not be there.
func optional(paths []string) []string {
	out := make([]string, 0, len(paths))
	for _, p := range paths {
		out = append(out, "-"+p)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
