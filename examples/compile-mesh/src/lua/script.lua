-- A little of everything that was compiled: closures, strings, tables, coroutines, the collector.
local function primes(limit)
  return coroutine.wrap(function()
    local composite = {}
    for n = 2, limit do
      if not composite[n] then
        coroutine.yield(n)
        for multiple = n * n, limit, n do composite[multiple] = true end
      end
    end
  end)
end

local sum, count = 0, 0
for prime in primes(100000) do sum, count = sum + prime, count + 1 end
assert(count == 9592 and sum == 454396537)

local words = {}
for word in ("quick brown foxes jump over lazy dogs"):gmatch("%a+") do words[#words + 1] = word:upper() end
table.sort(words)
assert(table.concat(words, " ") == "BROWN DOGS FOXES JUMP LAZY OVER QUICK")
assert(string.pack(">I4", 0xCAFEBABE) == "\xCA\xFE\xBA\xBE" and utf8.char(955) == "λ")
assert(not pcall(error, "caught") and math.tointeger(2.0 ^ 53) == 1 << 53)
collectgarbage()
print(_VERSION .. ": " .. count .. " primes below 100000, sum " .. sum)
