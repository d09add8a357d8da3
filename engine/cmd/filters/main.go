// Writes the syscall filters of kernel process and file server as Go source, for the options that Belljar runs them with.
//
// usage: filters SENTRY.go RUNSC.go
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	_ "unsafe" // for go:linkname

	"gvisor.dev/gvisor/pkg/seccomp"
	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	_ "gvisor.dev/gvisor/pkg/sentry/platform/systrap"
	sentry "gvisor.dev/gvisor/runsc/boot/filter/config"
	gofer "gvisor.dev/gvisor/runsc/fsgofer/filter/config"
)

// The module's exported generators make every combination of platform, network and GPU, 40 s of work; these are their core.
//
//go:linkname sentryRules gvisor.dev/gvisor/runsc/boot/filter/config.rules
func sentryRules(sentry.Options, precompiledseccomp.Values) (seccomp.SyscallRules, seccomp.SyscallRules)

//go:linkname goferRules gvisor.dev/gvisor/runsc/fsgofer/filter/config.rules
func goferRules(gofer.Options, precompiledseccomp.Values) (seccomp.SyscallRules, seccomp.SyscallRules)

// printWords is the argument of the second process: the bare programs as JSON to standard output.
const printWords = "-words"

func main() {
	var err error
	if os.Args[1] == printWords {
		err = writeWords(os.Stdout)
	} else {
		err = writeSources(os.Args[1], os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "filters:", err)
		os.Exit(1)
	}
}

// programs are those of the two kinds of process.
type programs struct {
	sentry, gofer []precompiledseccomp.Program
}

// words are their bare instructions.
type words struct {
	Sentry, Gofer [][]uint32
}

// writeSources writes the Go files. The programs are compiled here and once more by another process.
func writeSources(sentryPath, goferPath string) error {
	compiled, err := compileAll()
	if err != nil {
		return err
	}
	second := exec.Command("/proc/self/exe", printWords)
	second.Stderr = os.Stderr
	output, err := second.Output()
	if err != nil {
		return err
	}
	var others words
	if err := json.Unmarshal(output, &others); err != nil {
		return err
	}
	own, other := uint32(os.Getpid()), uint32(second.Process.Pid)
	for i, program := range compiled.sentry {
		if err := asProcessOne(program.Bytecode32, others.Sentry[i], own, other); err != nil {
			return err
		}
	}
	for i, program := range compiled.gofer {
		if !slices.Equal(program.Bytecode32, others.Gofer[i]) {
			return fmt.Errorf("the file server's filters of processes %d and %d differ: run again", own, other)
		}
	}
	if err := os.WriteFile(sentryPath, source(compiled.sentry), 0o644); err != nil {
		return err
	}
	return os.WriteFile(goferPath, source(compiled.gofer), 0o644)
}

func writeWords(output io.Writer) error {
	compiled, err := compileAll()
	if err != nil {
		return err
	}
	var bare words
	for _, program := range compiled.sentry {
		bare.Sentry = append(bare.Sentry, program.Bytecode32)
	}
	for _, program := range compiled.gofer {
		bare.Gofer = append(bare.Gofer, program.Bytecode32)
	}
	return json.NewEncoder(output).Encode(bare)
}

// source is a Go file with one function, which returns the programs by their keys.
func source(programs []precompiledseccomp.Program) []byte {
	var text strings.Builder
	text.WriteString("package main\n\nimport \"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp\"\n\n" +
		"func readyFilters() map[string]precompiledseccomp.Program {\n" +
		"\tready := map[string]precompiledseccomp.Program{}\n")
	for _, program := range programs {
		text.WriteString(program.Registration("\t", "precompiledseccomp", "ready"))
	}
	text.WriteString("\treturn ready\n}\n")
	return []byte(text.String())
}

// compileAll makes the filters for systrap, gVisor's own network, and no GPU, with and without direct access to files.
func compileAll() (programs, error) {
	var compiled programs
	systrap, err := platform.Lookup("systrap")
	if err != nil {
		return compiled, err
	}
	for _, directfs := range []bool{false, true} {
		for _, info := range systrap.PrecompiledSeccompInfo() {
			program, err := compileSentry(sentry.Options{Platform: info, HostFilesystem: directfs})
			if err != nil {
				return compiled, err
			}
			compiled.sentry = append(compiled.sentry, program)
		}
		for _, lisafs := range []bool{false, true} {
			program, err := compileGofer(gofer.Options{DirectFS: directfs, LisafsNeeded: lisafs})
			if err != nil {
				return compiled, err
			}
			compiled.gofer = append(compiled.gofer, program)
		}
	}
	return compiled, nil
}

func compileSentry(options sentry.Options) (precompiledseccomp.Program, error) {
	return compile(options.ConfigKey(), options.Vars(), func(values precompiledseccomp.Values) *seccomp.Program {
		allowed, denied := sentryRules(options, values)
		return program(allowed, denied, sentry.SeccompOptions(options))
	})
}

func compileGofer(options gofer.Options) (precompiledseccomp.Program, error) {
	return compile(options.ConfigKey(), options.Vars(), func(values precompiledseccomp.Values) *seccomp.Program {
		allowed, denied := goferRules(options, values)
		return program(allowed, denied, seccomp.ProgramOptions{})
	})
}

func compile(key string, variables precompiledseccomp.Values, make func(precompiledseccomp.Values) *seccomp.Program) (precompiledseccomp.Program, error) {
	var names []string
	for name := range variables {
		names = append(names, name)
	}
	slices.Sort(names)
	return precompiledseccomp.Precompile(key, names, make)
}

func program(allowed, denied seccomp.SyscallRules, options seccomp.ProgramOptions) *seccomp.Program {
	return &seccomp.Program{
		RuleSets: []seccomp.RuleSet{{Rules: denied.Copy()}, {Rules: allowed.Copy(), Action: seccomp.Allow}},
		Options:  options,
	}
}

// asProcessOne replaces the compiling process's id by 1, which is what the kernel process has in its own namespace.
//
// One systrap rule (rt_tgsigqueueinfo) compares with the process id of whoever compiles the filter and is not among the
// variables, so a filter taken as it is would kill the kernel process at that call. The place is where the programs of two
// processes differ; if an id equals another constant the programs differ elsewhere too, then a run with other ids will do.
func asProcessOne(words, others []uint32, own, other uint32) error {
	if len(words) != len(others) {
		return fmt.Errorf("the filters of processes %d and %d differ in length: run again", own, other)
	}
	place, seen := 0, 0
	for i := range words {
		if words[i] != others[i] {
			place = i
			seen++
		}
	}
	if seen != 1 || words[place] != own || others[place] != other {
		return fmt.Errorf("the filters of processes %d and %d differ in %d places, not in their ids alone: run again", own, other, seen)
	}
	words[place] = 1
	return nil
}
