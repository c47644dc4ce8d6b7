package gitserver

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// What costs an address how much: the idea of PerSourcePenalties in
// sshd_config(5), and nearly its prices.
const (
	costOfSilence = time.Second      // left without offering a key, or spoke no ssh
	costOfKeys    = 5 * time.Second  // none of the keys offered is let in
	costOfLate    = 10 * time.Second // held the connection until the deadline
	costOfAttack  = time.Minute      // a key that is made to cost time, a panic before the login, a flood of channels
)

const (
	penaltyCounts = 15 * time.Second // what is less is not acted upon: anybody may err
	penaltyTable  = 1 << 14          // networks that are remembered
)

// penalties keeps networks out that misbehave. A penalty adds to what is left of
// the earlier ones; from penaltyCounts on, until nothing is left, connections
// from there are refused. Being refused costs nothing, so whoever stays away that
// long, or behaves, is let in again: that is at most the longest time.
//
// A login takes back what its network has left to pay: in an office behind one
// address, somebody's broken script locks out nobody who gets in.
type penalties struct {
	mu    sync.Mutex
	until map[netip.Prefix]penalty
	swept time.Time
}

type penalty struct {
	until time.Time
	acted bool // it has counted, and does so until its end
}

// left is how long a network is kept out yet, 0 for not at all.
func (p *penalties) left(network netip.Prefix, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	one, ok := p.until[network]
	if !ok || !one.acted {
		return 0
	}
	return max(0, one.until.Sub(now))
}

// add lets a network pay, up to the longest time. It tells whether the network is
// kept out from now on.
func (p *penalties) add(network netip.Prefix, cost, longest time.Duration, now time.Time) (begins bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.until[network]
	if !one.until.After(now) {
		one = penalty{until: now}
	}
	one.until = one.until.Add(cost)
	if most := now.Add(longest); one.until.After(most) {
		one.until = most
	}
	if !one.acted && one.until.Sub(now) >= min(penaltyCounts, longest) {
		one.acted, begins = true, true
	}
	if _, known := p.until[network]; !known && !p.room(now) {
		return false // the caps hold all the same
	}
	p.until[network] = one
	return begins
}

// room makes room for a network, if that can be done. p.mu is held.
func (p *penalties) room(now time.Time) bool {
	if p.until == nil {
		p.until = map[netip.Prefix]penalty{}
	}
	if len(p.until) >= penaltyTable && now.Sub(p.swept) >= time.Second {
		p.swept = now
		for network, one := range p.until {
			if !one.until.After(now) {
				delete(p.until, network)
			}
		}
	}
	return len(p.until) < penaltyTable
}

// forgive forgets what a network has left to pay.
func (p *penalties) forgive(network netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.until, network)
}

// penalize lets the connection's network pay for what came from it.
func (c *connection) penalize(cost time.Duration, why string) {
	s := c.server
	if s.LongestPenalty < 0 || !c.network.IsValid() ||
		slices.ContainsFunc(s.Exempt, func(n netip.Prefix) bool { return n.Contains(c.network.Addr()) }) {
		return
	}
	longest := or(s.LongestPenalty, 10*time.Minute)
	if s.penalties.add(c.network, cost, longest, time.Now()) {
		c.log.Warnf("%s is kept out for a while, %s at most: %s", c.network, longest, why)
	}
}
