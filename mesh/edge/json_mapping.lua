-- Protobuf's JSON mapping, on top of the grammar: what each field of a message may be.

-- By number, made when a request first needs one (below): most are never used, and Envoy's main thread has a copy of all this for nothing.
local MESSAGES = {}

-- What a text may say in a field of each kind; for strings in bodies and values in queries.

local RANGES = {
  int32 = {"2147483647", "2147483648"}, uint32 = {"4294967295"},
  int64 = {"9223372036854775807", "9223372036854775808"}, uint64 = {"18446744073709551615"},
}

local function integer(value, field)
  local range = RANGES[field.k]
  local sign, digits = match(value, "^(-?)(%d+)$")
  if not digits or (byte(digits) == 48 and (#digits > 1 or sign == "-")) then
    refuse(FIELD, field.k, "is not an integer in plain digits")
  end
  local bound = sign == "" and range[1] or range[2]
  if not bound or #digits > #bound or (#digits == #bound and digits > bound) then
    refuse(FIELD, field.k .. ".range", "is beyond the range of " .. field.k)
  end
end

local function floating(value)
  if value == "NaN" or value == "Infinity" or value == "-Infinity" then return end
  if not match(value, "^-?%d+%.?%d*[eE]?[+-]?%d*$") then refuse(FIELD, "double", "is not a number") end
  local after = match(value, "^-?0()") or match(value, "^-?[1-9]%d*()")
  after = after and (match(value, "^%.%d+()", after) or after)
  after = after and (match(value, "^[eE][+-]?%d+()", after) or after)
  if after ~= #value + 1 then refuse(FIELD, "double", "is not a number") end
  finite(value)
end

local DAYS = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

local function timestamp(value)
  local year, month, day, hour, minute, second, rest = match(value, "^(%d%d%d%d)%-(%d%d)%-(%d%d)T(%d%d):(%d%d):(%d%d)(.*)$")
  if year then
    year, month, day = tonumber(year), tonumber(month), tonumber(day)
    local leap = year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
    local days = month == 2 and leap and 29 or DAYS[month]
    local fraction, zone = match(rest, "^%.(%d+)(.*)$")
    if fraction then rest = #fraction <= 9 and zone or "" end
    local zone_hour, zone_minute = match(rest, "^[+-](%d%d):(%d%d)$")
    local zoned = rest == "Z" or (zone_hour and tonumber(zone_hour) < 24 and tonumber(zone_minute) < 60 and year > 1 and year < 9999)
    if zoned and year > 0 and days and day >= 1 and day <= days and tonumber(hour) < 24 and tonumber(minute) < 60 and tonumber(second) < 60 then
      return
    end
  end
  refuse(FIELD, "timestamp", "is not an RFC 3339 time such as 2026-01-31T09:30:00Z")
end

local function duration(value)
  local whole, fraction = match(value, "^%-?(%d+)%.?(%d*)s$")
  local point = find(value, ".", 1, true)
  if not whole or #fraction > 9 or (point and fraction == "") or #whole > 12 or tonumber(whole) > 315576000000 - (fraction == "" and 0 or 1) then
    refuse(FIELD, "duration", "is not a duration such as 1.5s")
  end
end

local function field_mask(value)
  if value == "" then return end
  for one in gmatch(value .. ",", "([^,]*),") do
    for name in gmatch(one .. ".", "([^.]*)%.") do
      if not match(name, "^%l%w*$") then refuse(FIELD, "field_mask", "is not a list of field names in lowerCamelCase") end
    end
  end
end

local function base64(value)
  local body = match(value, "^([%w+/]*)=*$") or match(value, "^([%w_-]*)=*$")
  local padding = body and #value - #body
  if not body or #body % 4 == 1 or (padding > 0 and (#value % 4 ~= 0 or padding > 2)) then refuse(FIELD, "bytes", "is not base64") end
end

local function enum(value, field)
  if not field.e[value] then refuse(FIELD, "enum", "is not one of the names of " .. field.t) end
end

local function boolean(value)
  if value ~= "true" and value ~= "false" then refuse(FIELD, "bool", "is neither true nor false") end
end

local function anything() end

local TEXT = {
  string = anything, bytes = base64, enum = enum, bool = boolean, double = floating, timestamp = timestamp, duration = duration,
  field_mask = field_mask, int32 = integer, uint32 = integer, int64 = integer, uint64 = integer,
}

local function not_a(what)
  refuse(FIELD, "json.type", "has to be " .. what)
end

local function quoted(what)
  return function(at, c, field)
    if c ~= 34 then not_a(what) end
    local value, after = string_at(at)
    TEXT[field.k](value, field)
    return after
  end
end

local function number_or_text(at, c, field)
  local value, after
  if c == 34 then value, after = string_at(at)
  elseif c == 45 or (c and c >= 48 and c <= 57) then value, after = number_at(at)
  else not_a("a number") end
  TEXT[field.k](value, field)
  return after
end

local VALUE = {
  string = function(at, c)
    if c ~= 34 then not_a("a string") end
    local _, after = string_at(at)
    return after
  end,
  bool = function(at, c)
    if c == 116 then return word_at(at, "true") end
    if c == 102 then return word_at(at, "false") end
    not_a("true or false")
  end,
  bytes = quoted("a string of base64"), enum = quoted("the name of a value"), timestamp = quoted("a string with an RFC 3339 time"),
  duration = quoted("a string such as 1.5s"), field_mask = quoted("a string with a list of field names"),
  int32 = number_or_text, uint32 = number_or_text, int64 = number_or_text, uint64 = number_or_text, double = number_or_text,
  any = function() refuse(FIELD, "json.any", "cannot be given as JSON; call by gRPC") end,
  value = function(at, c) return any_value(at, c) end,
  struct = function(at, c)
    if c ~= 123 then not_a("an object") end
    return any_object(at)
  end,
  list = function(at, c)
    if c ~= 91 then not_a("an array") end
    return items(at, any_value)
  end,
}

-- A message's object. `bound` has the fields that the path or the query gives: true, or a table for fields within.
local function object_at(at, c, message, bound)
  if c ~= 123 then not_a("an object") end
  local fields, seen = message.f, {}
  return members(at, function(name, value_at, first)
    local field = fields[name]
    if not field then refuse(UNKNOWN, "json.field.known", "is no field of " .. message.n) end
    once(seen, field.n)
    local given = bound and bound[field.n]
    if given == true then refuse(FIELD, "path.body", "is given by the path and cannot be in the body") end
    if first == 110 and not field.null then return word_at(value_at, "null") end
    if field.o then
      if seen[field.o] then refuse(JSON, "json.oneof", "stands beside another field of which only one may be given") end
      seen[field.o] = true
    end
    return field.check(value_at, first, field, given)
  end)
end

function VALUE.message(at, c, field, bound)
  return object_at(at, c, MESSAGES[field.m], bound)
end

local function repeated_of(one)
  return function(at, c, field)
    if c ~= 91 then not_a("an array") end
    return items(at, function(item_at, first)
      if first == 110 and not field.null then not_a("an array without null") end
      return one(item_at, first, field)
    end)
  end
end

local function map_of(one)
  return function(at, c, field)
    if c ~= 123 then not_a("an object") end
    local seen, key_field = {}, {k = field.key}
    return members(at, function(name, value_at, first)
      once(seen, name)
      TEXT[field.key](name, key_field)
      if first == 110 and not field.null then not_a("an object without null") end
      return one(value_at, first, field)
    end)
  end
end

setmetatable(MESSAGES, {__index = function(made, number)
  local message = loadstring(SOURCES[number])()
  for _, field in pairs(message.f) do
    local one = VALUE[field.k]
    -- `null` means absent, but it is itself a Value. For a whole list of Values it is refused: the transcoder takes it for a list of one.
    field.null = field.k == "value"
    field.check = field.key and map_of(one) or field.r and repeated_of(one) or one
  end
  -- Both spellings of a name are the same field.
  for spelling, name in pairs(message.a) do message.f[spelling] = message.f[name] end
  made[number] = message
  return message
end})

local function check_document(document, message, field, bound)
  text, depth, path_count = document, 0, 0
  local at, c = skip(1)
  if not c then refuse(JSON, "json.body.required", "the method takes a JSON body") end
  if field then
    at = field.check(at, c, field, bound)
  else
    at = object_at(at, c, message, bound)
  end
  at, c = skip(at)
  if c then refuse(JSON, "json.grammar", "goes on after the end of the document") end
end
