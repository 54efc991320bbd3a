package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

func cat(_ context.Context, args []string) error {
	if len(args) == 0 {
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	}
	for _, file := range args {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		_, err = io.Copy(os.Stdout, f)
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func ls(_ context.Context, args []string) error {
	if len(args) == 0 {
		args = []string{"."}
	}
	for _, path := range args {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !info.IsDir() {
			describe(path, info)
			continue
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil {
				describe(e.Name(), info)
			}
		}
	}
	return nil
}

func describe(name string, info fs.FileInfo) {
	owner := ""
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = fmt.Sprintf("%d:%d", s.Uid, s.Gid)
	}
	fmt.Println(info.Mode(), owner, info.Size(), name)
}

func remove(_ context.Context, args []string) error {
	var errs []error
	for _, path := range args {
		errs = append(errs, os.Remove(path))
	}
	return errors.Join(errs...)
}

func write(_ context.Context, args []string) error {
	if len(args) < 1 {
		return errors.New("name the file")
	}
	return os.WriteFile(args[0], []byte(strings.Join(args[1:], " ")), 0o644)
}

func fill(_ context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("takes a file and a number of megabytes")
	}
	megabytes, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	f, err := os.Create(args[0])
	if err != nil {
		return err
	}
	for ; megabytes > 0 && err == nil; megabytes-- {
		_, err = f.Write(make([]byte, 1<<20))
	}
	return errors.Join(err, f.Sync(), f.Close())
}

func test(_ context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("takes one condition and one path")
	}
	info, err := os.Stat(args[1])
	holds := err == nil
	switch args[0] {
	case "-d":
		holds = holds && info.IsDir()
	case "-f":
		holds = holds && info.Mode().IsRegular()
	case "-e":
	default:
		return fmt.Errorf("there is no condition %s", args[0])
	}
	if !holds {
		return exitError(1)
	}
	return nil
}

// tarCommand is as much of tar as `kubectl cp` calls: `tar cf - PATH` and `tar [options] -xmf - [-C DIR]`.
func tarCommand(_ context.Context, args []string) error {
	mode, dir, paths := "", "", []string{}
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-C" && i+1 < len(args):
			i++
			dir = args[i]
		case a == "-" || strings.HasPrefix(a, "--"):
		case mode == "" && strings.ContainsAny(a, "cx"):
			mode = a
		default:
			paths = append(paths, a)
		}
	}
	if dir != "" {
		if err := os.Chdir(dir); err != nil {
			return err
		}
	}
	if strings.Contains(mode, "c") {
		return pack(os.Stdout, paths)
	}
	return unpack(os.Stdin)
}

func pack(w io.Writer, paths []string) error {
	t := tar.NewWriter(w)
	for _, root := range paths {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			link := ""
			if info.Mode()&fs.ModeSymlink != 0 {
				if link, err = os.Readlink(path); err != nil {
					return err
				}
			}
			h, err := tar.FileInfoHeader(info, link)
			if err != nil {
				return err
			}
			h.Name = strings.TrimPrefix(path, "/")
			if err := t.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			_, err = io.Copy(t, f)
			return err
		})
		if err != nil {
			return err
		}
	}
	return t.Close()
}

// unpack writes beneath the working directory, and nowhere else.
func unpack(r io.Reader) error {
	root, err := os.OpenRoot(".")
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Clean(strings.TrimPrefix(h.Name, "/"))
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, fs.FileMode(h.Mode).Perm())
		case tar.TypeSymlink:
			err = root.Symlink(h.Linkname, name)
		case tar.TypeReg:
			err = unpackFile(root, name, fs.FileMode(h.Mode).Perm(), t)
		}
		if err != nil {
			return err
		}
	}
}

func unpackFile(root *os.Root, name string, mode fs.FileMode, r io.Reader) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
