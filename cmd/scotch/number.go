package main

import (
	"errors"
	"strconv"
)

// number is the value of a flag, a whole number. pflag's own tells of one that is
// none in the words of strconv.
type number struct{ at *int }

func (n *number) Type() string { return "int" }

func (n *number) String() string {
	if n.at == nil { // pflag asks a zero value for the default
		return "0"
	}
	return strconv.Itoa(*n.at)
}

func (n *number) Set(word string) error {
	v, err := strconv.Atoi(word)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return errors.New("that number is too large")
	case err != nil:
		return errors.New("that is no number")
	}
	*n.at = v
	return nil
}
