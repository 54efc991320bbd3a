// Package space refuses writes to the API while the file system of etcd has no space left, and
// reserves enough space to do so in time.
//
// etcd ends when it cannot write its log or its database, so a write is refused before it reaches
// etcd. Reads, watches and all requests that store nothing go on, and with them the node agents:
// containers, probes, Services. While a little space is left, writes that free space or report
// status are admitted too, so that the Pod that has filled the disk can be deleted.
//
// The reserve is in etcd's own files. etcd allocates each file of its log in full; Reserve does the
// same for the database. Writes that are under way when the space is gone, and the few that etcd
// makes by itself, fit in there.
//
// etcd allocates the next file of its log in advance, and reports an error of that when it begins
// the file. So it can fail, and the process restart once, with "no space left on device" after
// space was freed. Nothing is lost by that.
//
//	controller.go observes the free space, plans the level of writes that are admitted, and refuses the others
//	plan.go       the levels, and which write each admits
//	await.go      waits for enough space to start
package space
