// Package logging writes what this process logs, upstream's components included, to one place and
// at one level of detail, so that a healthy idle cluster logs nothing. The control plane redirects
// klog.
package logging

import (
	"bytes"
	"io"
	"log"
	"path/filepath"

	"github.com/sirupsen/logrus"
	"gopkg.in/natefinch/lumberjack.v2"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// Sizes of the log file: at most maxBackups+1 files of maxMegabytes.
const (
	maxMegabytes = 20
	maxBackups   = 2
)

// File is the log file in a data directory, bounded in size.
func File(dataDir string) io.WriteCloser {
	return &lumberjack.Logger{Filename: Path(dataDir), MaxSize: maxMegabytes, MaxBackups: maxBackups}
}

// Path of the log file in a data directory.
func Path(dataDir string) string { return filepath.Join(dataDir, "log", "flyball.log") }

// Setup sends to w what is not logged through klog, and what controller-runtime logs to klog. It
// returns the writer for klog: at verbosity 0 only warnings and errors reach w. Call it once,
// before anything logs.
func Setup(w io.Writer, verbosity int) io.Writer {
	if verbosity == 0 {
		w = problems{w}
		logrus.SetLevel(logrus.WarnLevel)
	}
	ctrl.SetLogger(klog.Background())
	// CoreDNS and net/http log through the standard library, containerd's client through logrus.
	log.SetOutput(w)
	logrus.SetOutput(w)
	return w
}

// problems drops everything but warnings and errors. Upstream's components log hundreds of
// informational lines at level 0.
type problems struct{ w io.Writer }

func (p problems) Write(line []byte) (int, error) {
	if !isProblem(line) {
		return len(line), nil
	}
	return p.w.Write(line)
}

// isProblem knows the formats of klog ("E1122 …"), logrus ("time=… level=error") and CoreDNS ("…
// [ERROR] …"). Lines of net/http have no level and are no problems: they report a TLS handshake
// that a port scanner broke off, for example.
func isProblem(line []byte) bool {
	if len(line) > 5 && isDigits(line[1:5]) {
		return line[0] != 'I'
	}
	for _, mark := range []string{"level=warn", "level=error", "level=fatal", "[WARNING]", "[ERROR]", "[FATAL]", "panic"} {
		if bytes.Contains(line, []byte(mark)) {
			return true
		}
	}
	return false
}

func isDigits(s []byte) bool {
	return len(bytes.Trim(s, "0123456789")) == 0
}
