package plugins

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Plugin is what a driver says about itself through its registration socket.
type Plugin struct {
	// Type is a type of pluginregistration, such as CSIPlugin. Name is unique in it.
	Type, Name string
	// Endpoint is the socket on which the driver serves. It is the registration socket if the driver
	// names none.
	Endpoint string
	// Socket is the registration socket.
	Socket string
	// Versions are those of the driver's API that it supports.
	Versions []string
}

// key is what a Handler may have one plugin of.
type key struct{ typ, name string }

func (p Plugin) key() key { return key{p.Type, p.Name} }

// file identifies a socket: one that is made anew at the same path is another file.
type file struct {
	inode uint64
	// made is when the driver bound the socket. Of two sockets with one name, the later counts.
	made time.Time
}

// source is where a plugin comes from.
type source struct {
	path string
	file file
}

// socket is a registration socket that exists.
type socket struct {
	file file
	// plugin is what the socket answered; nil if it has not yet, or if the answer was refused.
	plugin *Plugin
	// busy says that the driver is being called. retry is when it may be called again.
	busy  bool
	retry time.Time
}

// registration is a plugin that a Handler has.
type registration struct {
	plugin Plugin
	from   source
}

// state is what plan decides about.
type state struct {
	sockets    map[string]*socket // by their paths
	registered map[key]registration
	// changing are the plugins that a Handler is registering or deregistering.
	changing map[key]bool
}

type verb string

const (
	ask        verb = "ask"        // the socket what the driver is
	register   verb = "register"   // the plugin, in place of one of this name
	deregister verb = "deregister" // the plugin
)

// action is what to do next with a socket or, to deregister, with the plugin that came from it.
type action struct {
	do     verb
	from   source
	plugin Plugin // zero to ask
	reason string
}

// plan returns what to do now, in the order of paths and names, and when to plan again; zero if only
// a change makes a difference.
func plan(s state, now time.Time) ([]action, time.Time) {
	var (
		actions []action
		next    time.Time
	)
	due := func(at time.Time) bool {
		if at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
		return !at.After(now)
	}
	newest := map[key]source{}
	for _, path := range slices.Sorted(maps.Keys(s.sockets)) {
		k, from := s.sockets[path], source{path, s.sockets[path].file}
		switch {
		case k.plugin != nil:
			if other, found := newest[k.plugin.key()]; !found || from.file.made.After(other.file.made) {
				newest[k.plugin.key()] = from
			}
		case !k.busy && due(k.retry):
			actions = append(actions, action{ask, from, Plugin{}, "the socket is new, or the last attempt failed"})
		}
	}
	// A name waits while its handler works on it, and while the socket that it came from is asked anew:
	// a driver that replaces its socket mostly says the same as before.
	waits := func(name key) bool {
		k := s.sockets[s.registered[name].from.path]
		return s.changing[name] || k != nil && k.plugin == nil
	}
	for _, name := range slices.SortedFunc(maps.Keys(newest), compare) {
		from := newest[name]
		if k := s.sockets[from.path]; s.registered[name].from != from && !waits(name) && !k.busy && due(k.retry) {
			actions = append(actions, action{register, from, *k.plugin, "this is the newest socket of the plugin"})
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(s.registered), compare) {
		if _, served := newest[name]; !served && !waits(name) {
			r := s.registered[name]
			actions = append(actions, action{deregister, r.from, r.plugin, "no socket of the plugin is left"})
		}
	}
	return actions, next
}

func compare(a, b key) int { return strings.Compare(a.typ+"\x00"+a.name, b.typ+"\x00"+b.name) }
