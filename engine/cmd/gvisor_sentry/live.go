package main

import (
	"fmt"
	"runtime"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/fd"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/tmpfs"
	"gvisor.dev/gvisor/pkg/sentry/seccheck"
	"gvisor.dev/gvisor/pkg/sentry/usage"
)

const liveLimitsName = "limits"

// liveLimits changes what a running sandbox is shown: the memory in all, and how many processors the kernel itself keeps busy.
//
// A sink of a trace session is the one thing that gVisor makes through the control socket of a kind that others define. This one
// listens to nothing; making it is all. The processors that programs see stay: they size things by them when they start.
type liveLimits struct{ seccheck.SinkDefaults }

// Name implements seccheck.Sink.
func (liveLimits) Name() string { return liveLimitsName }

func init() {
	seccheck.RegisterSink(seccheck.SinkDesc{Name: liveLimitsName, New: newLiveLimits})
}

// newLiveLimits takes `memory` in bytes and `cpus`, whole numbers of at least 1. With a wrong one nothing changes.
func newLiveLimits(config map[string]any, _ *fd.FD) (seccheck.Sink, error) {
	memory, _ := config["memory"].(float64)
	cpus, _ := config["cpus"].(float64)
	if !(memory >= 1 && memory < 1<<53) || !(cpus >= 1 && cpus <= 1<<16) {
		return nil, fmt.Errorf("limits need memory in bytes and cpus, not %v", config)
	}
	// Read by system calls at any time. In between both are allowed: the lesser one counts.
	atomic.StoreUint64(&usage.MaximumTotalMemoryBytes, uint64(memory))
	atomic.StoreUint64(&usage.MinimumTotalMemoryBytes, uint64(memory))
	tmpfs.SetTotalHostMem(uint64(memory))
	runtime.GOMAXPROCS(int(cpus))
	return liveLimits{}, nil
}
