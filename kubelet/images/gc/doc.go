// Package gc removes images that no container uses when their disk fills up (image garbage
// collection), with upstream's thresholds. It is the only one that removes images.
//
// controller.go observes images, containers and the disk every five minutes, and removes the images
// that plan.go returns. Nothing that it keeps is needed for correctness: after a restart every
// image is new, and stays for Policy.MinAge.
package gc
