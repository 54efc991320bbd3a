package images

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// debian fetches Debian packages with the host's apt, of the host's release, and reads what is in them.
type debian struct{ dir string }

// retries makes apt ask a server again that did not answer.
const retries = "Acquire::Retries=3"

// archive is the name of a package file in what apt prints: 'URI' NAME SIZE HASH.
var archive = regexp.MustCompile(`(?m)^'[^']+' (\S+\.deb) `)

// unpack adds packages and what they depend on to a tree. Nothing counts as installed: a package that Debian takes for
// granted is there only if somebody depends on it.
func (d debian) unpack(ctx context.Context, t tree, packages []string) error {
	for _, dir := range []string{"archives/partial", "none/partial"} {
		if err := os.MkdirAll(filepath.Join(d.dir, dir), 0o755); err != nil {
			return err
		}
	}
	status := filepath.Join(d.dir, "status")
	if err := os.WriteFile(status, nil, 0o644); err != nil {
		return err
	}
	apt := func(cache string, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{
			"-qq", "-y", "--no-install-recommends", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root", "-o", retries,
			"-o", "Dir::State::status=" + status, "-o", "Dir::Cache::archives=" + filepath.Join(d.dir, cache),
		}, append(args, packages...)...)...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("fetching packages %v: %w\n%s", packages, err, &stderr)
		}
		return stdout.Bytes(), nil
	}
	fetch := func() ([]byte, error) {
		// An empty cache makes apt print all of them, not only those that are missing.
		list, err := apt("none", "--print-uris", "install")
		if err == nil {
			_, err = apt("archives", "--download-only", "install")
		}
		return list, err
	}
	list, err := fetch()
	if err != nil {
		// A fresh machine has no package lists, and old lists name packages that the archive has replaced.
		if out, failed := exec.CommandContext(ctx, "apt-get", "-qq", "-o", retries, "update").CombinedOutput(); failed != nil {
			return fmt.Errorf("%w\nupdating the package lists: %w\n%s", err, failed, out)
		}
		list, err = fetch()
	}
	if err != nil {
		return err
	}
	for _, m := range archive.FindAllSubmatch(list, -1) {
		if err := d.read(ctx, t, string(m[1])); err != nil {
			return err
		}
	}
	return nil
}

func (d debian) read(ctx context.Context, t tree, name string) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", filepath.Join(d.dir, "archives", name))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("unpacking %s: %w", name, err)
	}
	err = t.unpack(out)
	if wait := cmd.Wait(); err == nil {
		err = wait
	}
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", name, err)
	}
	return nil
}

// busybox returns the tree below all images with a shell: busybox with all its names, and what every image has.
func (d debian) busybox(ctx context.Context) (tree, error) {
	t := tree{}
	if err := d.unpack(ctx, t, []string{"busybox-static"}); err != nil {
		return nil, err
	}
	program, ok := t["usr/bin/busybox"]
	if !ok {
		return nil, fmt.Errorf("unpacking busybox-static: it has no /bin/busybox")
	}
	// Debian's busybox is older than the suite's: its sh drops variables such as data-1, which Kubernetes allows. bash
	// hands them on.
	bash := tree{}
	if err := d.unpack(ctx, bash, []string{"bash-static"}); err != nil {
		return nil, err
	}
	t["usr/bin/bash-static"] = bash["usr/bin/bash-static"]
	t.link("bin/sh", "bash-static")
	local := filepath.Join(d.dir, "busybox")
	if err := os.WriteFile(local, program.body, 0o755); err != nil {
		return nil, err
	}
	list, err := exec.CommandContext(ctx, local, "--list-full").Output()
	if err != nil {
		return nil, fmt.Errorf("listing what busybox can do: %w", err)
	}
	for name := range strings.FieldsSeq(string(list)) {
		// The original has all of them in /bin, where a test looks for sysctl.
		for _, at := range []string{name, "bin/" + filepath.Base(name)} {
			if _, ok := t[place(at)]; !ok {
				t.link(at, "/bin/busybox")
			}
		}
	}
	for name, mode := range map[string]int64{"tmp": 0o1777, "var/tmp": 0o1777, "root": 0o700, "home": 0o755, "run": 0o755, "usr/sbin": 0o755, "usr/lib": 0o755, "usr/lib64": 0o755} {
		t.dir(name, mode)
	}
	for _, name := range merged {
		t[name] = symlink(name, "usr/"+name)
	}
	t.file("etc/passwd", 0o644, []byte(passwd))
	t.file("etc/group", 0o644, []byte(group))
	t.file("etc/nsswitch.conf", 0o644, []byte("passwd: files\ngroup: files\nhosts: files dns\n"))
	return t, nil
}
