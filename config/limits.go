package config

// Limits are those of [limits] that hold for one unit of work, 0 for none.
type Limits struct {
	Memory int64 // bytes
	CPU    int   // hundredths of one processor
	Tasks  int   // processes and threads
}

// LimitsOf returns the limits of the app's processes, and with the prefix
// "build_" those of its builds.
func (a *App) LimitsOf(prefix string) Limits {
	var l Limits
	// What is in the map was parsed before, by the same functions.
	l.Memory, _ = parseSize(a.Limits[prefix+"memory"])
	l.CPU, _ = parsePercent(a.Limits[prefix+"cpu"])
	l.Tasks, _ = parseNumber(1, 1<<20)(a.Limits[prefix+"tasks"])
	return l
}
