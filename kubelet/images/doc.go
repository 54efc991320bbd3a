// Package images makes sure that the image of a container is on the node before
// the container is created: pull policy, pull secrets, back-off, and the Events
// and waiting reasons that users know from upstream's kubelet. It is the only
// one who pulls images for Pods, and the only one who removes unused ones.
//
// It asks the runtime every time and keeps no list of images: one ImageStatus
// call is all that a Pod with a present image costs.
package images
