package config

import (
	"strings"
	"testing"
)

func TestLoopback(t *testing.T) {
	for s, ok := range map[string]bool{
		"127.0.0.1:9222": true, "[::1]:0": true, "localhost:9222": true, "127.3.2.1:80": true, "[::ffff:127.0.0.1]:1": true,
		":9222": false, "0.0.0.0:9222": false, "192.0.2.1:9222": false, "[::]:1": false, "example.org:1": false, "9222": false, "127.0.0.1": false, "127.0.0.1:x": false,
	} {
		if _, err := parseLoopback(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// TestWebURL: an error about the URL quotes no token.
func TestWebURL(t *testing.T) {
	for s, ok := range map[string]bool{
		"https://chat.example.org/hooks/TOKEN": true, "http://user:TOKEN@127.0.0.1:1/": true,
		"ftp://x/TOKEN": false, "https:///TOKEN": false, "TOKEN": false, "https://x/%zz TOKEN": false,
	} {
		_, err := parseWebURL(s)
		if (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
		if err != nil && strings.Contains(strings.ReplaceAll(err.Error(), "hooks/TOKEN", ""), "TOKEN") {
			t.Errorf("%q: %v", s, err)
		}
	}
}
