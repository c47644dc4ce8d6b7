package config

import "strings"

// validPunycode tells whether the part behind "xn--" of a host's label stands
// for something that ASCII can't say: RFC 3492, section 6.2. A browser shows
// other labels as they are, and no registry has them.
func validPunycode(s string) bool {
	const base, tmin, tmax, skew, damp = 36, 1, 26, 38, 700
	n, i, bias := 128, 0, 72
	length := 0
	if d := strings.LastIndexByte(s, '-'); d >= 0 {
		length, s = d, s[d+1:]
	}
	if s == "" {
		return false
	}
	for first := true; s != ""; first = false {
		before, weight := i, 1
		for k := base; ; k += base {
			if s == "" {
				return false
			}
			digit := strings.IndexByte("abcdefghijklmnopqrstuvwxyz0123456789", s[0])
			s = s[1:]
			// A label has 63 bytes at most; no character is beyond Unicode's last.
			if i += digit * weight; digit < 0 || i > 0x10ffff*64 {
				return false
			}
			t := min(max(k-bias, tmin), tmax)
			if digit < t {
				break
			}
			if weight *= base - t; weight > 0x10ffff*64 {
				return false
			}
		}
		length++
		delta := (i - before) / 2
		if first {
			delta = (i - before) / damp
		}
		delta += delta / length
		k := 0
		for ; delta > (base-tmin)*tmax/2; k += base {
			delta /= base - tmin
		}
		bias = k + (base-tmin+1)*delta/(delta+skew)
		n += i / length
		if i = i%length + 1; n > 0x10ffff || n >= 0xd800 && n < 0xe000 {
			return false
		}
	}
	return true
}
