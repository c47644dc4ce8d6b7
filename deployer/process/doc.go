// Package process holds what every runner needs of a process that it starts:
// its standard files, its program, who it runs as. It starts none itself.
package process
