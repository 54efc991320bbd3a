// Package pemtext takes certificates out of PEM and puts them back without
// anything else: no headers, and no text between the blocks.
package pemtext

import "encoding/pem"

// Decode returns the bytes of all blocks.
func Decode(text []byte) [][]byte {
	var out [][]byte
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return out
		}
		out = append(out, block.Bytes)
	}
}

// Encode makes a block of each certificate. Of none it makes an empty text, which is not nil.
func Encode(certificates [][]byte) []byte {
	out := []byte{}
	for _, der := range certificates {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}
