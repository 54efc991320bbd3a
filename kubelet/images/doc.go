// Package images makes the image of a container present before the container is created: pull
// policy, pull secrets, back-off, and the Events and waiting reasons of upstream's kubelet. It is
// the only one that pulls images for Pods; package gc removes unused ones.
//
// It keeps no list of images: a Pod with a present image costs one ImageStatus call of the runtime.
package images
