// Package loop makes block devices of image files.
package loop
