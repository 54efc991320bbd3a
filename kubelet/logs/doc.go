// Package logs keeps the logs of containers from filling the disk: a log that has
// grown to MaxSize is put aside, and the runtime told to begin a new one; older
// ones are compressed, and the oldest removed. Files are named as by upstream's
// kubelet, which log shippers know: 0.log, 0.log.20060102-150405, and
// 0.log.20060102-150405.gz.
//
// Nobody tells when a log has grown, so that this loop looks every ten seconds:
// it costs a listing of the directories, and asks the runtime only when there is
// something to do. It is the only one who renames and compresses logs. The logs of
// containers and Pods that are gone are removed by package pod.
package logs
