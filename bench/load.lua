-- Requests of wrk: look at one of the sandboxes, list twenty, or give one other labels. Ids come as arguments of the script.
local ids, token, count = {}, os.getenv("BELLJAR_LOAD_KEY"), 0

function init(args)
    for line in io.lines(args[1]) do ids[#ids + 1] = line end
    wrk.headers["Authorization"] = "Bearer " .. token
    wrk.headers["Content-Type"] = "application/json"
end

function request()
    count = count + 1
    local id = ids[math.random(#ids)]
    if count % 20 == 0 then return wrk.format("GET", "/v1/sandboxes?limit=20") end
    if count % 20 == 10 then
        return wrk.format("PATCH", "/v1/sandboxes/" .. id, nil, '{"labels": {"round": "' .. count .. '"}}')
    end
    return wrk.format("GET", "/v1/sandboxes/" .. id)
end

function done(summary, latency, requests)
    local errors = summary.errors
    io.write(string.format(
        '{"requests": %d, "seconds": %.3f, "p50": %.3f, "p99": %.3f, "max": %.3f, "failed": %d, "broken": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        latency.max / 1e3, errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
