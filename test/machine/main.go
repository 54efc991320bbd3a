//go:build linux

// Command machine makes a second machine out of this one, so that a cluster of several nodes fits on one host. It is a
// container with little in it: what a node agent would share with another one on the same host is its own, and the rest is the
// host's.
//
//	machine run NAME [--address 192.168.77.2/24] [--host 192.168.77.1/24] -- CMD ARG…   makes it if it is not there
//	machine exec NAME -- CMD ARG…                                                       in one that is there
//	machine remove NAME                                                                 ends all that runs in it
//
// run and exec pass standard input and output, signals and the exit code on. Whatever CMD leaves running goes on until
// remove, which leaves nothing behind, also when the machine is half made, or was never there. All three need root.
//
// Its own are:
//
//   - processes: a PID namespace, whose first process only collects the dead. Ending that one ends all of them;
//   - the network: a namespace with loopback and eth0, which is one end of a veth pair. The other end has the host's address,
//     and the default route leads there. Nobody translates addresses: the machine reaches the host, and beyond it whoever
//     has a route back. Unreachable routes for the Pod and the Service range stand there before anything else does, so that
//     no such packet leaves the machine, not even before a node agent starts in it, or after it has ended;
//   - files: /run, /var/lib and /var/log are empty at first, and changes to /etc are seen by nobody else. Everything else
//     is the host's, /tmp and the programs under test included. Mounts never propagate between the two;
//   - cgroups: a namespace, with all hierarchies that the host has mounted, version 1, 2 or both, mounted again from
//     the machine's own cgroup (flyball-machine-NAME) down, so that /kubepods of two node agents are not the same;
//   - its host name, which is NAME, and System V IPC.
//
// What it keeps on disk lies below /var/lib/flyball-machine/NAME on the host: there, the files of a node in it can be read.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
)

func main() {
	// Namespaces are entered by the thread, and the first one is what others see in /proc.
	runtime.LockOSThread()
	err := run(os.Args[1:])
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			os.Exit(128 + int(status.Signal()))
		}
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "machine:", err)
		os.Exit(1)
	}
}

const usage = `machine run NAME [--address PREFIX] [--host PREFIX] -- CMD ARG…
machine exec NAME -- CMD ARG…
machine remove NAME`

// A link's name has at most 15 characters, and the link of a machine is named after it.
var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?$`)

func run(args []string) error {
	if len(args) == 1 && args[0] == initCommand {
		return inside()
	}
	if len(args) > 1 && args[0] == childCommand {
		return child(args[1:])
	}
	if len(args) < 2 {
		return errors.New("reading the command line: usage:\n" + usage)
	}
	verb, name := args[0], args[1]
	if !validName.MatchString(name) {
		return fmt.Errorf("reading the command line: a machine's name has at most 11 of a-z, 0-9 and -, not %q", name)
	}
	var network Network
	var apart string
	f := flag.NewFlagSet("machine "+verb, flag.ContinueOnError)
	f.TextVar(&network.Address, "address", netip.MustParsePrefix("192.168.77.2/24"), "the machine's address")
	f.TextVar(&network.Host, "host", netip.MustParsePrefix("192.168.77.1/24"), "the host's address on the link to the machine")
	f.StringVar(&apart, "unreachable", "10.42.0.0/16,10.43.0.0/16", "prefixes that no packet to leaves the machine for")
	if err := f.Parse(args[2:]); err != nil {
		return fmt.Errorf("reading the command line: %w", err)
	}
	for text := range strings.SplitSeq(apart, ",") {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("reading --unreachable: %w", err)
		}
		network.Unreachable = append(network.Unreachable, prefix)
	}
	m := Machine{Name: name, Network: network}
	switch command := f.Args(); {
	case verb == "remove" && len(command) == 0:
		return m.Remove()
	case verb == "run" && len(command) > 0:
		if err := m.Create(); err != nil {
			return err
		}
		return m.Exec(command)
	case verb == "exec" && len(command) > 0:
		return m.Exec(command)
	default:
		return errors.New("reading the command line: usage:\n" + usage)
	}
}
