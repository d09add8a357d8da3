// runsc with the commands Belljar calls, and no others: a third of the stock binary's size. Its file server's syscall filters
// are compiled ahead of time, like those of the kernel process.
package main

import (
	"os"
	"slices"
	"sync"
	_ "unsafe" // for go:linkname

	"belljar/engine/collector"

	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/runsc/cli"
	"gvisor.dev/gvisor/runsc/cmd"
	"gvisor.dev/gvisor/runsc/cmd/util"
	_ "gvisor.dev/gvisor/runsc/fsgofer/filter"
)

// See the kernel process's main.go.
//
//go:linkname registered gvisor.dev/gvisor/runsc/fsgofer/filter.precompiledPrograms
var registered map[string]precompiledseccomp.Program

//go:linkname registerOnce gvisor.dev/gvisor/runsc/fsgofer/filter.registerPrecompiledProgramsOnce
var registerOnce sync.Once

func main() {
	if slices.Contains(os.Args, "gofer") {
		collector.Later()
	}
	registerOnce.Do(func() {})
	registered = readyFilters()
	commands := map[util.SubCommand]string{
		// runsc starts its file server from its own binary.
		new(cmd.Gofer): "internal",
	}
	for _, command := range []util.SubCommand{
		// Life of a sandbox.
		new(cmd.Create), new(cmd.Start), new(cmd.Run), new(cmd.Delete), new(cmd.Kill), new(cmd.Wait),
		new(cmd.Pause), new(cmd.Resume), new(cmd.Checkpoint), new(cmd.Restore), new(cmd.Update),
		// Looking into it, by hand and in tests.
		new(cmd.State), new(cmd.List), new(cmd.PS), new(cmd.Events), new(cmd.Exec), new(cmd.Do), new(cmd.Read),
		new(cmd.Debug), new(cmd.Features), new(cmd.CPUFeatures),
		// Its files and ports.
		new(cmd.Tar), new(cmd.FSCheckpoint), new(cmd.PortForward),
	} {
		commands[command] = ""
	}
	cli.Run(nil, commands, nil)
}
