// Check holds a passport, or a log served as files, against the packages note and tlog of Go's checksum database: a
// signed note, inclusion proofs and consistency proofs as somebody else implemented them.
//
//	check VKEYFILE PASSPORT
//	check VKEYFILE LOG OLDER-CHECKPOINT
package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	log.SetFlags(0)
	vkey := string(read(os.Args[1]))
	if len(os.Args) == 3 {
		passport(vkey, string(read(os.Args[2])))
	} else {
		files(vkey, os.Args[2], read(os.Args[3]))
	}
}

func must(err error, what string) {
	if err != nil {
		log.Fatalf("REFUSED: %s: %v", what, err)
	}
}

func read(path string) []byte {
	data, err := os.ReadFile(path)
	must(err, "a file")
	return data
}

// open checks a checkpoint's signature and reads what it says.
func open(vkey string, text []byte) tlog.Tree {
	verifier, err := note.NewVerifier(strings.TrimSpace(vkey))
	must(err, "the key")
	opened, err := note.Open(text, note.VerifierList(verifier))
	must(err, "the checkpoint's signature")
	lines := strings.Split(opened.Text, "\n")
	if lines[0] != verifier.Name() {
		log.Fatalf("REFUSED: the checkpoint is of %q", lines[0])
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err, "the checkpoint's size")
	root, err := tlog.ParseHash(lines[2])
	must(err, "the checkpoint's root")
	return tlog.Tree{N: size, Hash: root}
}

func passport(vkey, text string) {
	head, checkpoint, _ := strings.Cut(text, "\n\n")
	tree := open(vkey, []byte(checkpoint))
	lines := strings.Split(head, "\n")
	extra, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	must(err, "the extra line")
	entry, _, _ := bytes.Cut(extra, []byte("\n"))
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	must(err, "the index")
	var proof tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		must(err, "the proof")
		proof = append(proof, hash)
	}
	must(tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry)), "the inclusion proof")
	fmt.Printf("genuine: entry %d of %d\n", index, tree.N)
}

// tiles reads c2sp.org/tlog-tiles from files: tlog's own paths, without the height.
type tiles struct{ log string }

func (t tiles) Height() int                                { return 8 }
func (t tiles) SaveTiles(tiles []tlog.Tile, data [][]byte) {}

func (t tiles) ReadTiles(wanted []tlog.Tile) (data [][]byte, err error) {
	for _, tile := range wanted {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data = append(data, read(filepath.Join(t.log, path)))
	}
	return data, nil
}

func files(vkey, folder string, older []byte) {
	tree := open(vkey, read(filepath.Join(folder, "checkpoint")))
	hashes := tlog.TileHashReader(tree, tiles{folder})
	index := int64(0)
	for ; index < tree.N; index += 256 {
		tile := tlog.Tile{H: 8, L: -1, N: index / 256, W: 256}
		if tree.N-index < 256 {
			tile.W = int(tree.N - index)
		}
		path := strings.Replace(tile.Path(), "tile/8/data/", "tile/entries/", 1)
		bundle := read(filepath.Join(folder, path))
		for at := index; at < index+int64(tile.W); at++ {
			length := int(bundle[0])<<8 | int(bundle[1])
			leaf := tlog.RecordHash(bundle[2 : 2+length])
			bundle = bundle[2+length:]
			proof, err := tlog.ProveRecord(tree.N, at, hashes)
			must(err, "a tile")
			must(tlog.CheckRecord(proof, tree.N, tree.Hash, at, leaf), fmt.Sprintf("entry %d", at))
		}
		if len(bundle) > 0 {
			log.Fatalf("REFUSED: %s is too long", path)
		}
	}
	old := open(vkey, older)
	proof, err := tlog.ProveTree(tree.N, old.N, hashes)
	must(err, "a tile")
	must(tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash), "the consistency with the older checkpoint")
	fmt.Printf("genuine: %d entries, which continue an older log of %d\n", tree.N, old.N)
}
