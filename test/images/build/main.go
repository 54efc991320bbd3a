// Command build builds container images of this repository into tar files.
//
//	go run ./test/images/build -dir bin/images pause hello
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"flyball.dev/test/images"
)

func main() {
	dir := flag.String("dir", ".", "directory for NAME.tar")
	flag.Parse()
	if err := run(*dir, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir string, names []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(names) == 0 {
		return fmt.Errorf("building images: name at least one of %v", images.Names())
	}
	for _, name := range names {
		tag, img, err := images.Build(ctx, name)
		if err != nil {
			return err
		}
		if err := images.WriteFile(filepath.Join(dir, name+".tar"), tag, img); err != nil {
			return err
		}
	}
	return nil
}
