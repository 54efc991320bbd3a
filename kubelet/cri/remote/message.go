package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/logs"

	"flyball.dev/kubelet/cri"
)

const (
	// Limits of a termination message, from the API documentation of
	// Container.terminationMessagePath and terminationMessagePolicy.
	maxMessageBytes    = 4096
	maxMessageLogBytes = 2048
	maxMessageLogLines = 80
)

// withTerminationMessage appends the termination message: the end of the container's message file,
// or of its log if the policy says so.
func withTerminationMessage(ctx context.Context, st *runtimeapi.ContainerStatus, c cri.Container) string {
	policy := v1.TerminationMessagePolicy(c.Annotations[cri.AnnotationMessagePolicy])
	fallback := policy == v1.TerminationMessageFallbackToLogsOnError && c.ExitCode != 0 && !c.StartedAt.IsZero()

	text, err := readMessageFile(st, c.Annotations[cri.AnnotationMessagePath])
	if err == nil && text == "" && fallback {
		text, err = lastLogLines(ctx, c.LogPath)
	}
	if err != nil {
		text = fmt.Sprintf("Error on reading termination message: %v", err)
	}
	switch {
	case text == "":
		return c.Message
	case c.Message == "":
		return text
	default:
		return c.Message + ": " + text
	}
}

func readMessageFile(st *runtimeapi.ContainerStatus, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	for _, m := range st.GetMounts() {
		if m.ContainerPath != path {
			continue
		}
		text, err := tail(m.HostPath, maxMessageBytes)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return text, err
	}
	return "", nil
}

// tail reads the end of a file, also while a container appends to it without end.
func tail(path string, limit int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", nil
	}
	text, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-limit), limit))
	return string(text), err
}

func lastLogLines(ctx context.Context, path string) (string, error) {
	lines := int64(maxMessageLogLines)
	var out bytes.Buffer
	if err := logs.ReadLogs(ctx, path, "", &logs.LogOptions{TailLines: &lines}, nil, &out, &out); err != nil {
		return "", err
	}
	text := out.Bytes()
	return string(text[max(0, len(text)-maxMessageLogBytes):]), nil
}
