package git

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"scotch/deployer"
)

func (e *gitError) has(parts ...string) bool {
	all := strings.ToLower(e.all)
	for _, p := range parts {
		if strings.Contains(all, strings.ToLower(p)) {
			return true
		}
	}
	return false
}

// notLetIn tells that an ssh server was reached and gave nothing: the key is not
// known there, or not for this repository.
func (e *gitError) notLetIn() bool {
	return e.has("could not read from remote repository") && !e.has("verification failed") && !e.cutOff()
}

// cutOff tells that ssh came to no server.
func (e *gitError) cutOff() bool {
	for l := range strings.Lines(e.all) {
		if strings.HasPrefix(strings.TrimSpace(l), "ssh: ") {
			return true
		}
	}
	return false
}

// reason is why a fetch failed, in a line.
func (g *Git) reason(src *source, e *gitError) string {
	switch {
	case src.path != "":
		if e.has("does not appear to be a git repository", "not a git repository", "permission denied", "unable to access") {
			if src.isRepository() {
				return "git may not read it"
			}
			return "there is no git repository at that path"
		}
	case src.ssh:
		if e.has("host identification has changed") {
			return fmt.Sprintf("the host key of %q is another than it was", src.host)
		}
		return e.sshReason()
	case e.has("could not read username"):
		return fmt.Sprintf("%s asks for a name and a password, and [app] src has none", src.host)
	case e.has("authentication failed", "error: 403"):
		if src.scope == "" {
			return fmt.Sprintf("%s does not let us in", src.host)
		}
		return fmt.Sprintf("%s does not accept the name and password, or the token, in [app] src", src.host)
	case e.has("certificate"):
		return fmt.Sprintf("the certificate of %s is not trusted: %s", src.host, e.said)
	case e.has("not found") && e.has("repository '"):
		return fmt.Sprintf("%s says that there is no such repository", src.host)
	}
	return e.said
}

// sshReason is what ssh said, where that is why git could not read: git itself
// only says that it could not.
func (e *gitError) sshReason() string {
	if !strings.Contains(strings.ToLower(e.said), "could not read from remote repository") {
		return e.said
	}
	for l := range strings.Lines(e.all) {
		if l = strings.TrimSpace(l); strings.Contains(l, "verification failed") || strings.Contains(l, "Permission denied") || strings.HasPrefix(l, "ssh: ") {
			return deployer.Neutral(l)
		}
	}
	return e.said
}

// advice is the next step after a fetch that failed.
func (g *Git) advice(app string, src *source, e *gitError) string {
	switch {
	case e.has("mismatched algorithms", "hash algorithm", "object format"):
		return "the source is a sha256 repository, which is not supported yet: make it anew with git init --object-format=sha1"
	case src.path != "":
		if e.has("does not appear to be a git repository", "not a git repository", "permission denied", "unable to access") && src.isRepository() {
			who := "the server"
			if g.o.User != "" {
				who = fmt.Sprintf("the user %q ([server] git_user), as whom git runs,", g.o.User)
			}
			return fmt.Sprintf("%s must be able to read all of it and to enter the directories above: chmod -R o+rX %s", who, src.path)
		}
		return "check [app] src; by hand: git ls-remote " + src.path
	case e.has("host identification has changed"):
		return changedHostKey(e)
	case e.has("host key verification failed"):
		return "ssh would not take the host's key: compare it with what its owner publishes, and put it into " + g.pinsPath(app) + " (ssh-keyscan HOST)"
	case e.has("could not resolve host", "connection refused", "timed out", "no route to host", "failed to connect"):
		return "can this server reach that host? by hand: git ls-remote " + src.shown
	case src.ssh:
		return g.keyAdvice(app)
	case e.has("could not read username", "authentication failed", "error: 403", "not found"):
		return fmt.Sprintf("check the address: hosts say this of a repository that is not there, and of one that is private\n"+
			"for a private one put a token that may read it into [app] src, https://TOKEN@%s/…, or use its ssh address and the key of: scotch key %s", src.host, app)
	case e.has("certificate"):
		return "if its issuer is an authority of your own, put that one's certificate into /usr/local/share/ca-certificates/NAME.crt and run update-ca-certificates"
	}
	return "check [app] src; by hand: git ls-remote " + src.shown
}

// keyAdvice shows the app's deploy key, which is made here if need be.
func (g *Git) keyAdvice(app string) string {
	if g.o.Keys == "" {
		return "may this server read it? check the address and the key"
	}
	public, err := g.DeployKey(app)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("check the address; if the repository is private, let the app's key read it (on GitHub and GitLab a \"deploy key\") and deploy again:\n%s\nscotch key %s shows it again", public, app)
}

// offending is how ssh says where the key is that it knows the host by.
var offending = pattern(`Offending \S+ key in (\S+):(\d+)`)

// presented is the fingerprint of the key that a host has now, in ssh's warning.
var presented = pattern(`SHA256:[A-Za-z0-9+/]+`)

// changedHostKey says how a new host key is accepted.
func changedHostKey(e *gitError) string {
	text := "somebody may be between, or the host has a new key"
	if f := presented().FindString(e.all); f != "" {
		text += ", " + f
	}
	m := offending().FindStringSubmatch(e.all)
	if m == nil {
		return text + "\nif its owner says so, take the old one out of known_hosts, and deploy again"
	}
	n, _ := strconv.Atoi(m[2])
	if host := hostInLine(m[1], n); host != "" {
		return fmt.Sprintf("%s\nif its owner publishes that one, take the old one out and deploy again: ssh-keygen -R '%s' -f %s", text, host, m[1])
	}
	return fmt.Sprintf("%s\nif its owner publishes that one, take line %d out of %s and deploy again", text, n, m[1])
}

// hostInLine is the host that line n of a file of host keys is about, "" where
// that is hashed or not to be read.
func hostInLine(path string, n int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for l := range strings.Lines(string(data)) {
		if n--; n > 0 {
			continue
		}
		_, hosts, _, _, _, err := ssh.ParseKnownHosts([]byte(strings.TrimSpace(l) + "\n"))
		if err != nil || len(hosts) == 0 || strings.HasPrefix(hosts[0], "|") || strings.ContainsAny(hosts[0], "'*?!") {
			return ""
		}
		return hosts[0]
	}
	return ""
}
