//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Default returns the configuration of the containerd that is bundled in bundleDir, with its data
// below dataDir and what a reboot may take below runDir.
func Default(bundleDir, dataDir, runDir string) Config {
	state := filepath.Join(runDir, "containerd")
	return Config{
		BinDir: bundleDir, RootDir: filepath.Join(dataDir, "containerd"), StateDir: state, Socket: filepath.Join(state, "containerd.sock"),
		CNIBinDir: filepath.Join(bundleDir, "cni"), CNIConfDir: filepath.Join(runDir, "cni"),
		LogFile: filepath.Join(dataDir, "log", "containerd.log"), RegistryHosts: filepath.Join(dataDir, "registries"),
	}
}

// Answers reports whether a container runtime listens at endpoint, unix:///….sock.
func Answers(endpoint string) bool {
	conn, err := net.Dial("unix", strings.TrimPrefix(endpoint, "unix://"))
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// Remains reports whether containerd has run since the host booted and was not stopped: containers
// may run, even if containerd has died.
func (c Config) Remains() bool {
	_, err := os.Stat(c.StateDir)
	return err == nil
}

// ImportImages imports every image of an archive in a file, in `docker save` or OCI layout format,
// and returns their names. CRI shows them then.
func ImportImages(ctx context.Context, socket, file string) ([]string, error) {
	return loadFile(ctx, socket, file, false)
}

// PreloadFiles preloads the images of all archives, so that the first Pod needs no registry. Only
// the first archive must exist.
func PreloadFiles(ctx context.Context, socket string, files []string) error {
	for i, file := range files {
		_, err := loadFile(ctx, socket, file, true)
		if i > 0 && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func loadFile(ctx context.Context, socket, file string, pinned bool) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("opening the image archive: %w", err)
	}
	defer f.Close()
	names, err := load(ctx, socket, f, pinned)
	if err != nil {
		return nil, fmt.Errorf("importing %s: %w", file, err)
	}
	return names, nil
}

// Rows returns lines of a table, one for each name of the image: the name, the beginning of its ID
// and its size.
func (i Image) Rows() []string {
	names := i.Tags
	if len(names) == 0 {
		names = i.Digests
	}
	const length = 12 // enough to distinguish images
	id := strings.TrimPrefix(i.ID, "sha256:")
	var rows []string
	for _, name := range names {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s", name, id[:min(length, len(id))], resource.NewQuantity(int64(i.Size), resource.BinarySI)))
	}
	return rows
}
