package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	// linkPrefix is what the names of our links to plugins begin with, in a directory where others
	// have theirs.
	linkPrefix = "flyball-"
	// loopback is the plugin that a runtime calls by this name for each Pod, unless it brings up lo
	// itself.
	loopback = "loopback"
)

// linkPlugins puts links to our plugins into the runtime's directory, under names of our own. Only
// where there is no plugin loopback does ours take that name. What is not a link of ours is left
// alone.
func linkPlugins(binDir, pluginDir string) error {
	if err := os.MkdirAll(binDir, 0o755); err != nil {
		return fmt.Errorf("linking CNI plugins: %w", err)
	}
	for _, plugin := range []string{"bridge", "host-local", loopback} {
		target := filepath.Join(pluginDir, plugin)
		if _, err := os.Stat(target); err != nil {
			return fmt.Errorf("linking CNI plugins: %w", err)
		}
		if err := link(target, filepath.Join(binDir, linkPrefix+plugin)); err != nil {
			return err
		}
	}
	file := filepath.Join(binDir, loopback)
	if _, err := os.Lstat(file); err == nil {
		return nil
	}
	return link(linkPrefix+loopback, file)
}

// link makes a link, in place of one that leads elsewhere, as after an upgrade.
func link(target, file string) error {
	old, err := os.Readlink(file)
	switch {
	case err == nil && old == target:
		return nil
	case err == nil:
		err = os.Remove(file)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	default: // EINVAL for what is no link
		err = fmt.Errorf("%s is there already and no link of ours; rename or remove it: %w", file, err)
	}
	if err == nil {
		err = os.Symlink(target, file)
	}
	if err != nil {
		return fmt.Errorf("linking CNI plugins: %w", err)
	}
	return nil
}

// unlinkPlugins removes the links of linkPlugins. The directory may be everybody's and stays. So
// does loopback while the results that libcni keeps show a sandbox, of others by then: the runtime
// calls it to remove that one.
func unlinkPlugins(binDir, results string) error {
	plugins := []string{linkPrefix + "bridge", linkPrefix + "host-local"}
	if used, _ := filepath.Glob(filepath.Join(results, "cni-loopback-*")); len(used) == 0 {
		if target, err := os.Readlink(filepath.Join(binDir, loopback)); err == nil && target == linkPrefix+loopback {
			plugins = append(plugins, loopback)
		}
		plugins = append(plugins, linkPrefix+loopback)
	}
	var errs []error
	for _, plugin := range plugins {
		file := filepath.Join(binDir, plugin)
		if _, err := os.Readlink(file); err != nil {
			continue // there is none, or it is no link
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
