-- What wrk sends: one call to each actor of a range, and nothing more; and what was answered in the place of the
-- `turn_no` that is wanted.
local number = tonumber(os.getenv("BENCH_FIRST"))
local last = tonumber(os.getenv("BENCH_LAST"))
local left = last - number + 1
local path = os.getenv("BENCH_PATH")
local body = os.getenv("BENCH_BODY")
local wanted = os.getenv("BENCH_TURN_NO")
local headers = {["Content-Type"] = "application/json"}
local IDLE = 204
local looked_at = false
local threads = {}

failures = {}

function setup(thread)
  table.insert(threads, thread)
end

-- wrk knows no last request: who is done asks for the sidecar's health until the others are.
function request()
  -- wrk asks once for a request that it does not send, to see whether it is one.
  if number > last or not looked_at then
    looked_at = true
    return wrk.format("GET", "/v1.0/healthz/outbound")
  end
  number = number + 1
  return wrk.format("POST", path:format(number - 1), headers, body)
end

function response(status, _, answer)
  if status == IDLE then
    return
  end
  local turn_no = answer:match('"turn_no":%s*(%d+)')
  if status ~= 200 or turn_no ~= wanted then
    local code = answer:match('"errorCode":%s*"([%w_]+)"') or answer:match('"status":%s*"([%w_]+)"') or ""
    local what = turn_no and "turn_no " .. turn_no or ("status " .. status .. " " .. code):gsub(" $", "")
    failures[what] = (failures[what] or 0) + 1
  end
  left = left - 1
  if left == 0 then
    print("All are answered")
    io.stdout:flush()
  end
end

function done()
  for _, thread in ipairs(threads) do
    for what, count in pairs(thread:get("failures")) do
      print(("Failed %d: %s"):format(count, what))
    end
  end
end
