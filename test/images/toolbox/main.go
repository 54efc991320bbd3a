// Command toolbox is what the containers of the end-to-end tests run: one static program with the few commands that a
// test needs inside of a container, without a shell. The first argument is the command; called by another name, such as
// /bin/cat, that name is.
//
//	main.go  the table of commands, and those that concern the process
//	files.go those that concern files, tar for `kubectl cp` among them
//	net.go   servers and clients
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// command is one verb of the toolbox. It ends with a nil error, an exit code, or an error that is printed.
type command struct {
	usage string
	run   func(ctx context.Context, args []string) error
}

func commands() map[string]command {
	return map[string]command{
		"cat":   {"[FILE...]", cat},
		"dial":  {"http://…|tcp://HOST:PORT|udp://HOST:PORT [TEXT]: prints what is answered", dial},
		"echo":  {"TEXT...", echo},
		"env":   {"", env},
		"exit":  {"CODE [AFTER]", exit},
		"false": {"", func(context.Context, []string) error { return exitError(1) }},
		"fill":  {"FILE MEGABYTES: writes as much to a file, and to the disk", fill},
		"host":  {"NAME: prints its addresses", resolve},
		"hostname": {"", func(context.Context, []string) error {
			name, err := os.Hostname()
			fmt.Println(name)
			return err
		}},
		"id":     {"prints uid, gid, groups, and the effective capabilities", id},
		"lines":  {"COUNT [EVERY]: prints numbered lines, the odd ones on standard error", lines},
		"ls":     {"[PATH...]: prints mode, owner, size and name", ls},
		"memory": {"MEGABYTES: takes it and holds it", memory},
		"rm":     {"PATH...", remove},
		"serve":  {"[http=:PORT] [tcp=:PORT] [udp=:PORT]", serve},
		"sleep":  {"SECONDS|DURATION|inf [stubborn]: ends with 143 on SIGTERM, or not at all", sleep},
		"tar":    {"c|x f - [-C DIR] [PATH...]", tarCommand},
		"test":   {"-d|-e|-f PATH", test},
		"true":   {"", func(context.Context, []string) error { return nil }},
		"write":  {"FILE TEXT...: for a termination message, too", write},
	}
}

// exitError ends the program without a message.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() { os.Exit(run(os.Args)) }

func run(args []string) int {
	if filepath.Base(args[0]) == "toolbox" {
		args = args[1:]
	}
	if len(args) == 0 {
		usage()
		return 2
	}
	c, ok := commands()[filepath.Base(args[0])]
	if !ok {
		fmt.Fprintf(os.Stderr, "toolbox: there is no command %q\n", args[0])
		usage()
		return 127
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err := c.run(ctx, args[1:])
	var code exitError
	switch {
	case errors.As(err, &code):
		return int(code)
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s: %v\n", args[0], err)
		return 1
	}
	return 0
}

func usage() {
	all := commands()
	var names []string
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(os.Stderr, "  %s %s\n", name, all[name].usage)
	}
}

func echo(_ context.Context, args []string) error {
	_, err := fmt.Println(strings.Join(args, " "))
	return err
}

func env(context.Context, []string) error {
	all := os.Environ()
	slices.Sort(all)
	_, err := fmt.Println(strings.Join(all, "\n"))
	return err
}

func exit(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("name the code")
	}
	code, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if len(args) > 1 {
		if err := sleep(ctx, args[1:2]); err != nil {
			return err
		}
	}
	return exitError(code)
}

func sleep(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("name a time")
	}
	var done <-chan time.Time // never, for inf
	if args[0] != "inf" {
		d, err := duration(args[0])
		if err != nil {
			return err
		}
		done = time.After(d)
	}
	if slices.Contains(args[1:], "stubborn") {
		ctx = context.WithoutCancel(ctx)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return exitError(128 + int(syscall.SIGTERM))
	}
}

func duration(s string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		return time.Duration(seconds * float64(time.Second)), nil
	}
	return time.ParseDuration(s)
}

func lines(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("name the count")
	}
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for i := range count {
		out := os.Stdout
		if i%2 == 1 {
			out = os.Stderr
		}
		_, _ = fmt.Fprintf(out, "line %d\n", i)
		if len(args) > 1 {
			if err := sleep(ctx, args[1:2]); err != nil {
				return err
			}
		}
	}
	return nil
}

func id(context.Context, []string) error {
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	fmt.Printf("uid=%d gid=%d groups=%v\n", os.Getuid(), os.Getgid(), groups)
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for scan := bufio.NewScanner(f); scan.Scan(); {
		for _, field := range []string{"CapEff:", "NoNewPrivs:", "Seccomp:"} {
			if strings.HasPrefix(scan.Text(), field) {
				fmt.Println(strings.Join(strings.Fields(scan.Text()), " "))
			}
		}
	}
	return nil
}

// memory takes memory page by page, so that what the kernel kills at the limit is this process.
func memory(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("name the number of megabytes")
	}
	megabytes, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	held := make([][]byte, 0, megabytes)
	for range megabytes {
		block := make([]byte, 1<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		held = append(held, block)
	}
	fmt.Printf("holding %d MB\n", len(held))
	<-ctx.Done()
	_, err = fmt.Fprintln(io.Discard, len(held)) // still needed until here
	return err
}
