package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
)

// parseWebURL takes an http or https URL. It may hold a token: no error quotes it.
func parseWebURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", errors.New("must be a URL such as https://chat.example.org/hooks/TOKEN")
	}
	return s, nil
}

// parseLoopback takes HOST:PORT of an address that only this machine reaches.
func parseLoopback(s string) (string, error) {
	host, _, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("must be HOST:PORT such as 127.0.0.1:9222, not %q", s)
	}
	ip, err := netip.ParseAddr(host)
	if host != "localhost" && (err != nil || !ip.Unmap().IsLoopback()) {
		return "", fmt.Errorf("%q is no loopback address, and others must not reach it\nwrite 127.0.0.1 or [::1] before the port, and let a proxy with a password ask it from elsewhere", host)
	}
	return parseListen(s)
}
