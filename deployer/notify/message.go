package notify

import (
	"fmt"
	"strings"
	"time"

	"scotch/deployer"
)

// Message is the JSON that is sent, one object.
type Message struct {
	// Event is "deploy.started", "deploy.live", "deploy.failed" or "deploy.rolled_back".
	Event string `json:"event"`
	// Text says it in one line: what chats show (Slack, Mattermost, …).
	Text    string    `json:"text"`
	Time    time.Time `json:"time"`
	Server  string    `json:"server"` // the host's name
	App     string    `json:"app"`
	By      string    `json:"by"`                // name of a key; "scotch" for the watch
	Release int       `json:"release,omitempty"` // live now; of a failed deploy what it would have been
	Commit  string    `json:"commit,omitempty"`
	Subject string    `json:"subject,omitempty"`
	Ref     string    `json:"ref,omitempty"`
	URL     string    `json:"url,omitempty"`
	// What was live before, left out for nothing.
	OldRelease int     `json:"old_release,omitempty"`
	OldCommit  string  `json:"old_commit,omitempty"`
	Reason     string  `json:"reason,omitempty"`
	Seconds    float64 `json:"seconds"` // since its beginning
}

// message makes the message of an event; ok is false where it is none to tell.
func message(e deployer.Event, server string, now time.Time) (m Message, ok bool) {
	m = Message{
		Time: now.UTC().Truncate(time.Millisecond), Server: server, App: e.App, By: deployer.Neutral(e.By.Name),
		Release: e.Release, Commit: e.Commit, Subject: deployer.Neutral(e.Subject), Ref: deployer.Neutral(e.Ref), URL: e.URL,
		OldRelease: e.OldRelease, OldCommit: e.Old, Reason: deployer.Neutral(e.Reason), Seconds: e.Took.Seconds(),
	}
	what := fmt.Sprintf("%.7s %q", e.Commit, m.Subject)
	switch {
	case e.What == "deploy" && e.State == deployer.EventStarted:
		m.Event = "deploy.started"
		m.Text = fmt.Sprintf("%s: deploying %s as v%d", e.App, what, e.Release)
	case e.What == "deploy" && e.State == deployer.EventLive:
		m.Event = "deploy.live"
		m.Text = fmt.Sprintf("%s: v%d is live at %s: %s", e.App, e.Release, e.URL, what)
	case e.What == "deploy" && e.State == deployer.EventFailed:
		m.Event = "deploy.failed"
		m.Text = fmt.Sprintf("%s: %s", e.App, m.Reason)
	case e.What == "rollback" && e.State == deployer.EventLive:
		m.Event = "deploy.rolled_back"
		m.Text = fmt.Sprintf("%s: rolled back from v%d to v%d", e.App, e.OldRelease, e.Release)
		if m.Reason != "" {
			m.Text += ": " + m.Reason
		}
	default:
		return m, false
	}
	if m.By != "" {
		m.Text += " (" + m.By + ")"
	}
	m.Text = strings.ToValidUTF8(m.Text, "\uFFFD")
	return m, true
}
