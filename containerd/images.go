//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// namespace has the images that CRI shows.
	namespace   = "k8s.io"
	snapshotter = "overlayfs"
	// CRI's label of pinned images, from containerd's internal/cri/labels.
	labelPinned, pinnedValue = "io.cri-containerd.pinned", "pinned"
	// CRI learns of an imported image by an event, which takes milliseconds.
	visibleTimeout  = 10 * time.Second
	visibleInterval = 2 * time.Millisecond
)

// Image is an image that CRI shows.
type Image struct {
	// ID is the digest of the image's configuration.
	ID string
	// Tags and Digests are references to it.
	Tags, Digests []string
	// Size is in bytes, compressed.
	Size uint64
	// Pinned images are not garbage-collected.
	Pinned bool
}

// load loads every image of an archive, in `docker save` or OCI layout format, into the runtime
// behind socket and returns their names. When it returns, CRI shows the images, and containers can
// be started from them. If r is an io.ReadSeeker, such as an *os.File, and all its images exist
// with the same names and content, it loads none. Image garbage collection keeps pinned images.
func load(ctx context.Context, socket string, r io.Reader, pinned bool) ([]string, error) {
	c, err := dial(socket)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	names, err := store(ctx, c, r)
	if err != nil {
		return nil, err
	}
	if pinned {
		if err := pin(ctx, c, names); err != nil {
			return nil, err
		}
	}
	return names, awaitVisible(ctx, socket, names, pinned)
}

// pin sets CRI's label of pinned images.
func pin(ctx context.Context, c *client.Client, names []string) error {
	for _, name := range names {
		i, err := c.ImageService().Get(ctx, name)
		if err != nil {
			return fmt.Errorf("looking up image %s: %w", name, err)
		}
		if i.Labels[labelPinned] == pinnedValue {
			continue
		}
		if i.Labels == nil {
			i.Labels = map[string]string{}
		}
		i.Labels[labelPinned] = pinnedValue
		if _, err := c.ImageService().Update(ctx, i, "labels."+labelPinned); err != nil {
			return fmt.Errorf("pinning image %s: %w", name, err)
		}
	}
	return nil
}

// store imports the images of an archive into containerd, unless they exist.
func store(ctx context.Context, c *client.Client, r io.Reader) ([]string, error) {
	if s, ok := r.(io.ReadSeeker); ok {
		names, err := present(ctx, c, s)
		if err != nil || names != nil {
			return names, err
		}
	}
	imported, err := c.Import(ctx, r, client.WithImageRefTranslator(normalize), client.WithSkipMissing())
	if err != nil {
		return nil, fmt.Errorf("importing the archive: %w", err)
	}
	var names []string
	for _, i := range imported {
		if err := client.NewImage(c, i).Unpack(ctx, snapshotter); err != nil {
			return nil, fmt.Errorf("unpacking image %s: %w", i.Name, err)
		}
		names = append(names, i.Name)
	}
	if len(names) == 0 {
		return nil, errors.New("importing the archive: no image in it has a name; save it under a name such as example.com/app:1")
	}
	return names, nil
}

// normalize turns the name that an OCI layout gives an image into a full reference, or nothing if
// it is a bare tag.
func normalize(name string) string {
	named, err := reference.ParseDockerRef(name)
	if err != nil || named.Name() == "docker.io/library/"+name {
		return ""
	}
	return named.String()
}

// present returns the names in an archive if all of its images exist, with the same content and
// unpacked, and nil otherwise. It rewinds the archive.
func present(ctx context.Context, c *client.Client, archive io.ReadSeeker) ([]string, error) {
	wanted, err := readArchive(archive)
	if _, serr := archive.Seek(0, io.SeekStart); serr != nil {
		return nil, fmt.Errorf("rewinding the archive: %w", serr)
	}
	if err != nil || len(wanted) == 0 {
		return nil, err
	}
	var names []string
	for name, content := range wanted {
		there, err := c.GetImage(ctx, name)
		if errdefs.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("looking up image %s: %w", name, err)
		}
		if !content.is(ctx, there) {
			return nil, nil
		}
		// A crash in the middle of an import leaves a name without its layers.
		if ok, err := there.IsUnpacked(ctx, snapshotter); err != nil || !ok {
			return nil, nil //nolint:nilerr // importing again repairs it
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// awaitVisible returns when CRI shows the images, as pinned images if pinned is set.
func awaitVisible(ctx context.Context, socket string, names []string, pinned bool) error {
	conn, err := dialCRI(socket)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	service := runtimeapi.NewImageServiceClient(conn)
	ctx, cancel := context.WithTimeout(ctx, visibleTimeout)
	defer cancel()
	for _, name := range names {
		for {
			resp, err := service.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
			if err == nil && resp.Image != nil && (resp.Image.Pinned || !pinned) {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("waiting until CRI shows image %s: %w", name, errors.Join(ctx.Err(), err))
			case <-time.After(visibleInterval):
			}
		}
	}
	return nil
}

// ListImages returns the images that CRI shows, sorted by their first tag.
func ListImages(ctx context.Context, socket string) ([]Image, error) {
	conn, err := dialRunning(socket)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	resp, err := runtimeapi.NewImageServiceClient(conn).ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	found := make([]Image, 0, len(resp.Images))
	for _, i := range resp.Images {
		found = append(found, Image{ID: i.Id, Tags: i.RepoTags, Digests: i.RepoDigests, Size: i.Size, Pinned: i.Pinned})
	}
	slices.SortFunc(found, func(a, b Image) int {
		return slices.Compare(slices.Concat(a.Tags, []string{a.ID}), slices.Concat(b.Tags, []string{b.ID}))
	})
	return found, nil
}

// PullImage pulls an image without credentials, as the node agent would, and returns its ID.
func PullImage(ctx context.Context, socket, ref string) (string, error) {
	if _, err := reference.ParseDockerRef(ref); err != nil {
		return "", fmt.Errorf("reading image reference %q: %w", ref, err)
	}
	conn, err := dialRunning(socket)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	resp, err := runtimeapi.NewImageServiceClient(conn).PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	if err != nil {
		return "", fmt.Errorf("pulling image %s: %w", ref, err)
	}
	return resp.ImageRef, nil
}

var errNotRunning = errors.New("the container runtime is not running; `flyball up` starts it")

// dialRunning fails at once if there is no socket, instead of after gRPC's timeout.
func dialRunning(socket string) (*grpc.ClientConn, error) {
	if _, err := os.Stat(socket); err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", socket, errNotRunning)
	}
	return dialCRI(socket)
}

func dial(socket string) (*client.Client, error) {
	if _, err := os.Stat(socket); err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", socket, errNotRunning)
	}
	c, err := client.New(socket, client.WithDefaultNamespace(namespace))
	if err != nil {
		return nil, fmt.Errorf("connecting to the container runtime at %s: %w", socket, err)
	}
	return c, nil
}
