package access

import "testing"

func TestMay(t *testing.T) {
	verbs := map[Role][]Verb{
		Read: {VerbHelp, VerbList, VerbPS, VerbFetch, VerbReleases, VerbLogs},
		Push: {VerbPush, VerbForce, VerbDump, VerbDeploy, VerbCancel, VerbRollback, VerbLock, VerbUnlock, VerbRestart,
			VerbStop, VerbStart, VerbRebuild, VerbRun, VerbEnv, VerbConfig, VerbKey},
		Admin: {VerbCreate, VerbDestroy, VerbKeys, VerbOperator, VerbAudit, VerbDF, VerbPrune, VerbDoctor},
	}
	for need, vs := range verbs {
		for _, v := range vs {
			for _, role := range []Role{"", "root", Read, Push, Admin} {
				want := role.rank() >= need.rank()
				if got := May(Identity{Role: role}, v, "blog"); got != want {
					t.Errorf("role %q, %s blog: %v, want %v", role, v, got, want)
				}
				if got := May(Identity{Role: role}, v, ""); got != want {
					t.Errorf("role %q, %s: %v, want %v", role, v, got, want)
				}
				bound := Identity{Role: role, Apps: []string{"blog"}}
				if got := May(bound, v, "blog"); got != want {
					t.Errorf("role %q on blog, %s blog: %v, want %v", role, v, got, want)
				}
				if got := May(bound, v, "blog-api"); got != (want && role == Admin) {
					t.Errorf("role %q on blog, %s blog-api: %v", role, v, got)
				}
				overview := v == VerbHelp || v == VerbList || v == VerbPS
				if got := May(bound, v, ""); got != (want && (role == Admin || overview)) {
					t.Errorf("role %q on blog, %s of everything: %v", role, v, got)
				}
			}
		}
	}
	for _, v := range []Verb{"", "serve", "setup", "hook", "LIST"} {
		if May(Identity{Role: Admin}, v, "") || May(Identity{Role: Admin}, v, "blog") {
			t.Errorf("an unknown verb %q is allowed", v)
		}
	}
	if May(Identity{Local: true, Name: "x"}, VerbList, "") {
		t.Error("being local gives a right by itself")
	}
}

func TestNoAppsIsNotAllApps(t *testing.T) {
	if May(Identity{Role: Push, Apps: []string{}}, VerbPush, "blog") {
		t.Error("an empty list of apps was read as all apps")
	}
}

func TestCovers(t *testing.T) {
	some := func(r Role, apps ...string) Identity { return Identity{Role: r, Apps: apps} }
	for _, tt := range []struct {
		now, was Identity
		want     bool
	}{
		{some(Push), some(Push), true},
		{some(Push), some(Read, "blog"), true},
		{some(Push, "blog"), some(Push), false},
		{some(Push, "blog", "shop"), some(Push, "blog"), true},
		{some(Push, "shop"), some(Push, "blog"), false},
		{some(Read), some(Push), false},
		{some(Admin), some(Push), true},
		{some(Push), some(Admin), false},
		{Identity{}, some(Read), false},
		{Identity{Role: Push, Apps: []string{}}, some(Push, "blog"), false},
	} {
		if got := tt.now.Covers(tt.was); got != tt.want {
			t.Errorf("%+v covers %+v: %v", tt.now, tt.was, got)
		}
	}
}
