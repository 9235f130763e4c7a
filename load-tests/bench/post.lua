-- What wrk sends: messages of random users, each in a session of their own; and a count of what was answered.
math.randomseed(tonumber(os.getenv("BENCH_SEED")))
local users = tonumber(os.getenv("BENCH_USERS"))
local prefix = os.getenv("BENCH_PREFIX")
local headers = {["Content-Type"] = "application/json"}
local body = '{"user_id":"%s","text":"hello there","metadata":{"session_id":"s-%s"}}'
local threads = {}

statuses = {}

function setup(thread)
  table.insert(threads, thread)
end

function request()
  local user = prefix .. math.random(users)
  return wrk.format("POST", nil, headers, body:format(user, user))
end

-- wrk's own count of failures knows neither which they were nor redirections.
function response(status)
  statuses[status] = (statuses[status] or 0) + 1
end

function done()
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses")) do
      print(("Status %d: %d"):format(status, count))
    end
  end
end
