// Package images builds the container images that Kubernetes' end-to-end suite names, and serves them from a registry on
// loopback, so that the suite runs without the internet.
//
// catalog.go says what is in each image: Go programs, compiled from the suite's own sources, and Debian packages. build.go
// makes layers of that (layer.go, debian.go) and keeps the images as an OCI layout; registry.go serves the layout and
// tells the suite, by a repository list, where its images are. Nobody else writes the layout.
package images
