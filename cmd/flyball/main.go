// Command flyball is a complete Kubernetes in one program.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"flyball.dev/cmd/flyball/internal/progress"
)

func main() {
	err := run(context.Background(), os.Args)
	if err == nil {
		return
	}
	if !errors.Is(err, errSilent) {
		fmt.Fprintln(os.Stderr, progress.ErrorPrefix+err.Error())
	}
	os.Exit(1)
}
