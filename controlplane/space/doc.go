// Package space decides what a control plane does when the file system under its data directory has no space left, and
// keeps as much in reserve as it needs to decide that in time.
//
// etcd ends when it cannot write its log or its database, so a write is refused before it gets there. Reads, watches and all
// that stores nothing go on, and with them the node agents: containers, probes, Services. While a little space is left, what
// frees space or reports what runs is written too, so that the Pod that has filled the disk can be deleted.
//
// The reserve is in etcd's own files. Its log is written into space that was allocated with the file; Reserve does the same
// for the database. What is under way when the space is gone, and the few writes that etcd makes by itself, fit in there.
//
// etcd allocates the next file of its log ahead, and keeps an error of that until it begins the file.
// So it can fail, and the process restart once, with "no space left on device" after space was freed.
// Nothing is lost by that.
package space
