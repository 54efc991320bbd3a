// Package logs rotates the logs of containers, so that they do not fill the disk. A log that has
// grown to MaxSize is renamed, and the runtime begins a new one; older ones are compressed, and the
// oldest removed. Names are those of upstream's kubelet, which log shippers know: 0.log,
// 0.log.20060102-150405 and 0.log.20060102-150405.gz.
//
// No event announces that a log has grown, so the loop polls every ten seconds: it lists
// directories, and calls the runtime only when a log is due. It is the only writer that renames and
// compresses logs. Package pod removes the logs of containers and Pods that are gone.
package logs
