package main

import (
	"encoding/json"
	"strconv"
	"strings"
	"syscall"
)

const maxSpec = 1 << 20

// limits is the part of an OCI spec that says what the sandbox may use.
type limits struct {
	Linux struct {
		Resources struct {
			Memory struct {
				Limit int64 `json:"limit"`
			} `json:"memory"`
			CPU struct {
				Quota  int64 `json:"quota"`
				Period int64 `json:"period"`
			} `json:"cpu"`
		} `json:"resources"`
	} `json:"linux"`
}

// withSpecLimits makes `free` and `nproc` inside show the limits of the spec.
//
// Belljar puts the kernel process into a cgroup by itself and starts runsc with --ignore-cgroups; then runsc passes on the
// machine's whole memory and leaves the number of CPUs to be found out. The host's memory is what a tmpfs without a size of
// its own takes half of (/dev and whatever is mounted inside), so it is the limit as well. What cannot be read leaves the
// arguments as they are.
func withSpecLimits(args []string) []string {
	spec, ok := readSpec(args)
	if !ok {
		return args
	}
	memory, cpu := spec.Linux.Resources.Memory, spec.Linux.Resources.CPU
	changed := make([]string, 0, len(args)+2)
	for i := 0; i < len(args); i++ {
		changed = append(changed, args[i])
		isTotal := args[i] == "--total-memory"
		if !isTotal && args[i] != "--total-host-memory" || i+1 == len(args) {
			continue
		}
		i++
		total := args[i]
		if machine, err := strconv.ParseInt(total, 10, 64); err == nil && memory.Limit > 0 && memory.Limit < machine {
			total = strconv.FormatInt(memory.Limit, 10)
		}
		changed = append(changed, total)
		if isTotal && cpu.Quota > 0 && cpu.Period > 0 {
			whole := max(1, (cpu.Quota+cpu.Period-1)/cpu.Period)
			changed = append(changed, "--cpu-num", strconv.FormatInt(whole, 10))
		}
	}
	return changed
}

// readSpec reads the spec through the descriptor that runsc hands over: the bundle lies in a folder that this process, no
// longer root, cannot enter. It leaves the descriptor's position as it is.
func readSpec(args []string) (limits, bool) {
	var spec limits
	for _, arg := range args {
		number, found := strings.CutPrefix(arg, "--spec-fd=")
		if !found {
			continue
		}
		fd, err := strconv.Atoi(number)
		if err != nil {
			return spec, false
		}
		data := make([]byte, maxSpec)
		size, err := syscall.Pread(fd, data, 0)
		return spec, err == nil && json.Unmarshal(data[:max(size, 0)], &spec) == nil
	}
	return spec, false
}
