-- What wrk sends: the body in a file, with the headers that are given; and what it says in the end, as JSON.
-- wrk ... -s load.lua URL -- BODY NAME=VALUE...

function init(args)
    wrk.method = "POST"
    local file = assert(io.open(args[1], "rb"))
    wrk.body = file:read("*a")
    file:close()
    for index = 2, #args do
        local name, value = args[index]:match("([^=]+)=(.*)")
        wrk.headers[name] = value
    end
end

function done(summary, latency)
    local errors = summary.errors
    print(string.format('{"requests": %d, "failed": %d, "p50_ms": %.3f, "p99_ms": %.3f}', summary.requests,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
