//go:build linux

package teardown

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"flyball.dev/internal/loop"
	"flyball.dev/internal/mounts"
)

// releaseVolumes unmounts what is mounted in the folders of volumes, and frees the loop devices of
// the images in them: a block volume has one that no mount keeps.
func releaseVolumes(folders []string) error {
	var errs []error
	for _, folder := range folders {
		errs = append(errs, mounts.UnmountBelow(folder))
	}
	for _, image := range attached(slices.Clone(folders)...) {
		errs = append(errs, loop.Detach(image))
	}
	return errors.Join(errs...)
}

// removeVolumes removes the folders. An image with a loop device is in use, and stays.
func removeVolumes(folders []string) error {
	var errs []error
	for _, folder := range folders {
		if images := attached(folder); len(images) > 0 {
			errs = append(errs, fmt.Errorf("removing %s: %s is still in use as a block device; end what uses it first", folder, strings.Join(images, ", ")))
			continue
		}
		errs = append(errs, mounts.RemoveTree(folder))
	}
	return errors.Join(errs...)
}

// attached returns the images in the folders that have loop devices.
func attached(folders ...string) (images []string) {
	for i, folder := range folders { // the kernel's paths have no links
		if resolved, err := filepath.EvalSymlinks(folder); err == nil {
			folders[i] = resolved
		}
	}
	devices, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, device := range devices {
		content, err := os.ReadFile(device) // none if the device was freed meanwhile
		image := strings.TrimSpace(string(content))
		if err == nil && slices.ContainsFunc(folders, func(f string) bool { return strings.HasPrefix(image, f+"/") }) {
			images = append(images, image)
		}
	}
	return images
}
