package python

import "encoding/json"

// What a reader says, as JSON. The types that are read into have fields of their
// own names; these are their pictures on the way between two processes of the same
// program.

type (
	wireVersion struct {
		Release []int
		Pre     bool `json:",omitempty"`
	}
	wireClause struct {
		Op  string
		V   version
		Any bool `json:",omitempty"`
	}
	wireWant struct {
		From, Text string
		Exact      version
		Specs      []specifier
	}
	wireFile struct {
		Name    string
		Sum     []byte
		Content []byte `json:",omitempty"`
	}
	wireIndex   struct{ Name, URL string }
	wireAddress struct{ Scheme, User, Place, Rev, Query, Fragment string }
	wireLocked  struct {
		Name, Version, Marker string   `json:",omitempty"`
		Hashes                []string `json:",omitempty"`
		Index                 string   `json:",omitempty"`
		At                    *address `json:",omitempty"`
		Local                 string   `json:",omitempty"`
	}
	wireLockfile struct {
		Name     string
		Packages []locked
		Indexes  []index
	}
	wireDeclaration struct {
		Kind    kind
		From    string
		Files   []file
		Needs   []string  `json:",omitempty"`
		Lock    *lockfile `json:",omitempty"`
		Root    bool      `json:",omitempty"`
		Mutable string    `json:",omitempty"`
		Notes   []string  `json:",omitempty"`
	}
)

func (v version) MarshalJSON() ([]byte, error) { return json.Marshal(wireVersion{v.release, v.pre}) }

func (v *version) UnmarshalJSON(b []byte) error {
	var w wireVersion
	err := json.Unmarshal(b, &w)
	*v = version{w.Release, w.Pre}
	return err
}

func (c clause) MarshalJSON() ([]byte, error) { return json.Marshal(wireClause{c.op, c.v, c.any}) }

func (c *clause) UnmarshalJSON(b []byte) error {
	var w wireClause
	err := json.Unmarshal(b, &w)
	*c = clause{w.Op, w.V, w.Any}
	return err
}

func (w want) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireWant{w.from, w.text, w.exact, w.specs})
}

func (w *want) UnmarshalJSON(b []byte) error {
	var o wireWant
	err := json.Unmarshal(b, &o)
	*w = want{o.From, o.Text, o.Exact, o.Specs}
	return err
}

// maxShown is how much of a file goes along, for what is said of its lines.
const maxShown = 1 << 20

func (f file) MarshalJSON() ([]byte, error) {
	w := wireFile{Name: f.name, Sum: f.sum()}
	if len(f.content) <= maxShown {
		w.Content = f.content
	}
	return json.Marshal(w)
}

func (f *file) UnmarshalJSON(b []byte) error {
	var w wireFile
	err := json.Unmarshal(b, &w)
	*f = file{name: w.Name, content: w.Content, summed: w.Sum}
	return err
}

func (i index) MarshalJSON() ([]byte, error) { return json.Marshal(wireIndex{i.name, i.url}) }

func (i *index) UnmarshalJSON(b []byte) error {
	var w wireIndex
	err := json.Unmarshal(b, &w)
	*i = index{w.Name, w.URL}
	return err
}

func (a address) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireAddress{a.scheme, a.user, a.place, a.rev, a.query, a.fragment})
}

func (a *address) UnmarshalJSON(b []byte) error {
	var w wireAddress
	err := json.Unmarshal(b, &w)
	*a = address{w.Scheme, w.User, w.Place, w.Rev, w.Query, w.Fragment}
	return err
}

func (l locked) MarshalJSON() ([]byte, error) {
	w := wireLocked{Name: l.name, Version: l.version, Marker: l.marker, Hashes: l.hashes, Index: l.index, Local: l.local}
	if l.at != (address{}) {
		w.At = &l.at
	}
	return json.Marshal(w)
}

func (l *locked) UnmarshalJSON(b []byte) error {
	var w wireLocked
	err := json.Unmarshal(b, &w)
	*l = locked{name: w.Name, version: w.Version, marker: w.Marker, hashes: w.Hashes, index: w.Index, local: w.Local}
	if w.At != nil {
		l.at = *w.At
	}
	return err
}

func (l lockfile) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireLockfile{l.name, l.packages, l.indexes})
}

func (l *lockfile) UnmarshalJSON(b []byte) error {
	var w wireLockfile
	err := json.Unmarshal(b, &w)
	*l = lockfile{w.Name, w.Packages, w.Indexes}
	return err
}

func (d declaration) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireDeclaration{d.kind, d.from, d.files, d.needs, d.lock, d.root, d.mutable, d.notes})
}

func (d *declaration) UnmarshalJSON(b []byte) error {
	var w wireDeclaration
	err := json.Unmarshal(b, &w)
	*d = declaration{w.Kind, w.From, w.Files, w.Needs, w.Lock, w.Root, w.Mutable, w.Notes}
	return err
}
