package python

// What a lock may hold, far above what any project has. Its packages are compared
// with each other, in the server: time must not grow with the square of what a push
// brings, for nothing ends it.
const (
	maxPackages = 5000
	maxIndexes  = 100
	maxMarker   = 10_000 // bytes
	maxEffort   = 10_000_000
)

// fits refuses a lock of too many packages.
func (l lockTool) fits(packages int) error {
	if packages > maxPackages {
		return l.refuse("it has %d packages, and %d are taken", packages, maxPackages)
	}
	return nil
}

// effort is what is left of the work of going through what each package of a lock
// needs: about the bytes that are read, each time that they are.
type effort int

func newEffort() effort { return maxEffort }

// spend refuses a lock in which packages need each other too many times over.
func (e *effort) spend(l lockTool, bytes, times int) error {
	*e -= effort((bytes + 100) * (times + 1))
	if *e < 0 {
		return l.refuse("its packages need each other in too many ways\nlock again: %s", l.relock)
	}
	return nil
}
