-- Refuses what the transcoder would drop or bend: unknown and doubled names, wrong forms, a body that speaks about the path.
--
-- Runs before the transcoder (ADR 29). The tables SOURCES, TREE, VERBS, GRPC, PASSED and the bounds BODY_BYTES_MAX, DEPTH_MAX are
-- generated from the contract and stand above this text. One document is checked without a yield, so the state below is one document's.

local byte, find, sub, match, gmatch, gsub, char, floor =
  string.byte, string.find, string.sub, string.match, string.gmatch, string.gsub, string.char, math.floor
local concat = table.concat

local JSON, UNKNOWN, FIELD = "JSON_INVALID", "FIELD_UNKNOWN", "FIELD_INVALID"
local METHOD_HEADER = "x-trademesh-method"

local text          -- the document under check
local depth = 0     -- open objects and arrays
local path = {}     -- names and indexes from the root to the value under check
local path_count = 0

local function plain(words)
  return (gsub(sub(words, 1, 128), "[^\32-\126]", "?"):gsub('[\\"]', "?"))
end

local function where()
  local shown = {}
  for number = 1, path_count do
    local step = path[number]
    if type(step) == "number" then
      shown[number] = "[" .. (step - 1) .. "]"
    elseif step then
      shown[number] = (number > 1 and "." or "") .. plain(step)
    end
  end
  return concat(shown)
end

local function refuse(reason, rule, description)
  error({reason = reason, rule = rule, description = description, field = where()}, 0)
end

local function refuse_field(field, reason, rule, description)
  error({reason = reason, rule = rule, description = description, field = plain(field)}, 0)
end

-- RFC 8259: the grammar.

local function skip(at)
  local c = byte(text, at)
  while c == 32 or c == 10 or c == 13 or c == 9 do
    at = at + 1
    c = byte(text, at)
  end
  return at, c
end

local function continuation(value, at, low, high)
  local c = byte(value, at)
  return c ~= nil and c >= low and c <= high
end

-- The position after one well-formed sequence of several bytes (RFC 3629), nil for any other.
local function after_sequence(value, at)
  local c = byte(value, at)
  if c < 0xC2 or c > 0xF4 then return nil end
  if c < 0xE0 then
    return continuation(value, at + 1, 0x80, 0xBF) and at + 2 or nil
  end
  if c < 0xF0 then
    local low, high = c == 0xE0 and 0xA0 or 0x80, c == 0xED and 0x9F or 0xBF
    return continuation(value, at + 1, low, high) and continuation(value, at + 2, 0x80, 0xBF) and at + 3 or nil
  end
  local low, high = c == 0xF0 and 0x90 or 0x80, c == 0xF4 and 0x8F or 0xBF
  return continuation(value, at + 1, low, high) and continuation(value, at + 2, 0x80, 0xBF) and continuation(value, at + 3, 0x80, 0xBF)
    and at + 4 or nil
end

local function utf8(code)
  if code < 0x80 then return char(code) end
  if code < 0x800 then return char(0xC0 + floor(code / 64), 0x80 + code % 64) end
  if code < 0x10000 then return char(0xE0 + floor(code / 4096), 0x80 + floor(code / 64) % 64, 0x80 + code % 64) end
  return char(0xF0 + floor(code / 262144), 0x80 + floor(code / 4096) % 64, 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
end

local SIMPLE = {[34] = '"', [92] = "\\", [47] = "/", [98] = "\b", [102] = "\f", [110] = "\n", [114] = "\r", [116] = "\t"}

local function code_unit(at)
  local digits = match(text, "^\\u(%x%x%x%x)", at)
  return digits and tonumber(digits, 16)
end

-- The text of the escape at a backslash, and the position after it.
local function escape(at)
  local simple = SIMPLE[byte(text, at + 1)]
  if simple then return simple, at + 2 end
  local code = code_unit(at)
  if not code then refuse(JSON, "json.string.escape", "has an escape that JSON does not know") end
  if code == 0 then refuse(JSON, "json.string.nul", "contains the character U+0000") end
  if code < 0xD800 or code > 0xDFFF then return utf8(code), at + 6 end
  local low = code < 0xDC00 and code_unit(at + 6)
  if not low or low < 0xDC00 or low > 0xDFFF then refuse(JSON, "json.string.surrogate", "has half a surrogate pair") end
  return utf8(0x10000 + (code - 0xD800) * 1024 + low - 0xDC00), at + 12
end

local function long_string(start)
  local parts, count, at = {}, 0, start
  while true do
    at = find(text, '[%z\1-\31"\\\128-\255]', at)
    if not at then refuse(JSON, "json.grammar", "ends within a string") end
    local c = byte(text, at)
    if c == 34 then
      parts[count + 1] = sub(text, start, at - 1)
      return concat(parts), at + 1
    elseif c == 92 then
      local meant, after = escape(at)
      parts[count + 1], parts[count + 2] = sub(text, start, at - 1), meant
      count, at, start = count + 2, after, after
    elseif c < 32 then
      refuse(JSON, "json.string.control", "has a bare control character in a string")
    else
      at = after_sequence(text, at) or refuse(JSON, "json.utf8", "is not UTF-8")
    end
  end
end

-- The string whose opening quote stands at `at`, and the position after its closing one.
local function string_at(at)
  local stop = find(text, '[%z\1-\31"\\\128-\255]', at + 1)
  if stop and byte(text, stop) == 34 then return sub(text, at + 1, stop - 1), stop + 1 end
  return long_string(at + 1)
end

-- The number at `at` as it is written, and the position after it. Nothing is converted, so nothing is lost.
local function number_at(at)
  local after = match(text, "^-?0()", at) or match(text, "^-?[1-9]%d*()", at)
  if not after then refuse(JSON, "json.grammar", "has something that is no JSON value") end
  if byte(text, after) == 46 then
    after = match(text, "^%d+()", after + 1) or refuse(JSON, "json.number", "has a number without digits after its point")
  end
  local c = byte(text, after)
  if c == 101 or c == 69 then
    after = match(text, "^[+-]?%d+()", after + 1) or refuse(JSON, "json.number", "has a number without digits in its exponent")
  end
  return sub(text, at, after - 1), after
end

local function word_at(at, word)
  if sub(text, at, at + #word - 1) ~= word then refuse(JSON, "json.grammar", "has something that is no JSON value") end
  return at + #word
end

local function open()
  depth = depth + 1
  if depth > DEPTH_MAX then refuse(JSON, "json.depth", "is nested deeper than " .. DEPTH_MAX .. " levels") end
  path_count = path_count + 1
  path[path_count] = false
end

local function close(at)
  depth, path_count = depth - 1, path_count - 1
  return at + 1
end

-- Walk the members of an object from its brace; `member` gets each name and where its value begins, and returns where it ends.
local function members(at, member)
  local name, c
  open()
  at, c = skip(at + 1)
  if c == 125 then return close(at) end
  while true do
    path[path_count] = false
    if c ~= 34 then refuse(JSON, "json.grammar", "needs a name in double quotes") end
    name, at = string_at(at)
    path[path_count] = name
    at, c = skip(at)
    if c ~= 58 then refuse(JSON, "json.grammar", "needs a colon after the name") end
    at, c = skip(at + 1)
    at, c = skip(member(name, at, c))
    if c == 125 then return close(at) end
    if c ~= 44 then refuse(JSON, "json.grammar", "needs a comma or the end of the object") end
    at, c = skip(at + 1)
  end
end

-- Walk the items of an array from its bracket.
local function items(at, item)
  local c
  local number = 1
  open()
  at, c = skip(at + 1)
  if c == 93 then return close(at) end
  while true do
    path[path_count] = number
    at, c = skip(item(at, c))
    if c == 93 then return close(at) end
    if c ~= 44 then refuse(JSON, "json.grammar", "needs a comma or the end of the array") end
    at, c = skip(at + 1)
    number = number + 1
  end
end

local function once(seen, key)
  if seen[key] then refuse(JSON, "json.name.unique", "is given twice") end
  seen[key] = true
end

local any_value

local function any_object(at)
  local seen = {}
  return members(at, function(name, value_at, c)
    once(seen, name)
    return any_value(value_at, c)
  end)
end

local function finite(number)
  local value = tonumber(number)
  if not value or value == math.huge or value == -math.huge then refuse(FIELD, "number.range", "is beyond what a double can hold") end
end

-- google.protobuf.Value: any JSON.
function any_value(at, c)
  if c == 34 then
    local _, after = string_at(at)
    return after
  end
  if c == 123 then return any_object(at) end
  if c == 91 then return items(at, any_value) end
  if c == 116 then return word_at(at, "true") end
  if c == 102 then return word_at(at, "false") end
  if c == 110 then return word_at(at, "null") end
  local number, after = number_at(at)
  finite(number)
  return after
end
