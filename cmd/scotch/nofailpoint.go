//go:build !failpoint

package main

import "scotch/deployer"

// failpoints is for the program that tests build; this one has none.
func failpoints() *deployer.Files { return nil }
