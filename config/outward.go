package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
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

// parseNetworks reads addresses and networks (192.0.2.0/24), in any number.
func parseNetworks(s string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return isSpace(r) || r == ',' }) {
		network, err := netip.ParsePrefix(word)
		if addr, bad := netip.ParseAddr(word); bad == nil && addr.Zone() == "" {
			network, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%q is neither an address nor a network such as 192.0.2.0/24", word)
		}
		if network.Addr().Is4In6() {
			return nil, fmt.Errorf("%q is written as IPv6\nwrite the IPv4 network", word)
		}
		all = append(all, network.Masked())
	}
	return all, nil
}
