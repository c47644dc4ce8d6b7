package config

import (
	"fmt"
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

func TestNetworks(t *testing.T) {
	for s, want := range map[string]string{
		"127.0.0.0/8 ::1/128": "[127.0.0.0/8 ::1/128]", "192.0.2.7": "[192.0.2.7/32]", "192.0.2.7/24, 2001:db8::1": "[192.0.2.0/24 2001:db8::1/128]", "": "[]",
		"example.org": "", "192.0.2.0/33": "", "fe80::1%eth0": "", "::ffff:192.0.2.1": "", "192.0.2.*": "",
	} {
		got, err := parseNetworks(s)
		if (err == nil) != (want != "") || err == nil && fmt.Sprint(got) != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}
