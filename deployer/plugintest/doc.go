// Package plugintest holds the conformance suites of the interfaces that
// deployer declares. A plugin's own test calls the suite that fits it, so that
// nothing above the interface needs to know which implementation it has.
package plugintest
