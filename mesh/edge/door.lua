-- The REST door: finds the method of a request, checks all that the transcoder will read, and names the method for the rules behind it.

local HTTP_CODES = {CONTENT_TYPE_UNSUPPORTED = "415", MESSAGE_TOO_LARGE = "413", METHOD_NOT_ALLOWED = "405"}
local INFO = '{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"%s","domain":"trademesh","metadata":{}}'
local BAD = ',{"@type":"type.googleapis.com/google.rpc.BadRequest","field_violations":[{"field":"%s","description":"%s","reason":"%s"}]}'

local function answer(handle, refusal, allow)
  local subject = refusal.field ~= "" and refusal.field or "body"
  local details = string.format(INFO, refusal.answer_reason or refusal.reason)
  if refusal.rule then details = details .. string.format(BAD, refusal.field, refusal.description, refusal.rule) end
  local body = string.format('{"code":%d,"message":"%s %s","details":[%s]}', refusal.code or 3, subject, refusal.description, details)
  local headers = {[":status"] = HTTP_CODES[refusal.reason] or "400", ["content-type"] = "application/json"}
  if allow then headers["allow"] = allow end
  handle:respond(headers, body)
end

-- The bytes that a percent-encoded text stands for; refuses what is not UTF-8 or has control characters.
local function unescaped(encoded, field)
  if not find(encoded, "[%%%z\1-\31\127-\255]") then return encoded end
  local decoded, broken = gsub(encoded, "%%(%x%x)", function(digits) return char(tonumber(digits, 16)) end)
  if find(gsub(encoded, "%%%x%x", ""), "%", 1, true) then refuse_field(field, FIELD, "percent_encoding", "is not well percent-encoded") end
  local at = find(decoded, "[%z\1-\31\127-\255]")
  while at do
    if byte(decoded, at) < 128 then refuse_field(field, FIELD, "control_character", "has a control character") end
    at = after_sequence(decoded, at)
    if not at then refuse_field(field, FIELD, "utf8", "is not UTF-8") end
    at = find(decoded, "[%z\1-\31\127-\255]", at)
  end
  return decoded
end

-- Follow the tree of path templates, literal segments before variables, as the transcoder does.
local function walk(node, segments, number, count, verb)
  if number > count then return node.e and node.e[verb] end
  local literal = node.s and node.s[segments[number]]
  local found = literal and walk(literal, segments, number + 1, count, verb)
  if not found and node.w then found = walk(node.w, segments, number + 1, count, verb) end
  if not found and node.x then found = node.x[verb] end
  return found
end

local function routes_of(location)
  local segments, count = {}, 0
  for segment in gmatch(location, "/([^/]*)") do
    if segment == "" then return nil end
    count = count + 1
    segments[count] = segment
  end
  if count == 0 then return nil end
  local head, verb = match(segments[count], "^(.*):([^:]*)$")
  if verb and VERBS[verb] then segments[count] = head else verb = "" end
  if segments[count] == "" then return nil end
  local found = walk(TREE, segments, 1, count, verb)
  if found then
    for number = 1, count do unescaped(segments[number], "path") end
  end
  return found
end

-- The field that a parameter names, such as `min_position.tx`, and its one spelling.
local function parameter(name, message, bound)
  local spelling, field = {}, nil
  for part in gmatch(name .. ".", "([^.]*)%.") do
    if not message then refuse_field(name, UNKNOWN, "query.known", "is no parameter of this method") end
    field = message.f[part]
    if not field then refuse_field(name, UNKNOWN, "query.known", "is no parameter of this method") end
    local given = bound and bound[field.n]
    if given == true then refuse_field(name, FIELD, "path.query", "is given by the path or the body and cannot be in the query") end
    bound = given
    spelling[#spelling + 1] = field.n
    message = field.k == "message" and not field.r and not field.key and MESSAGES[field.m] or nil
  end
  if not TEXT[field.k] or field.key then refuse_field(name, FIELD, "query.form", "cannot be given in the query") end
  return field, concat(spelling, ".")
end

local function check_query(query, route)
  local seen = {}
  for pair in gmatch(query .. "&", "([^&]*)&") do
    local name, value = match(pair, "^([%w_.]+)=(.*)$")
    if not name then refuse_field(pair, FIELD, "query.grammar", "is no parameter of the form name=value") end
    local field, spelling = parameter(name, MESSAGES[route.i], route.q)
    if seen[spelling] and not field.r then refuse_field(name, FIELD, "query.unique", "is given twice") end
    seen[spelling] = true
    path_count, path[1] = 1, name
    TEXT[field.k](unescaped(value, name), field)
  end
end

local function check_content_type(headers)
  local given = headers:get("content-type")
  local plain_type = given and headers:getNumValues("content-type") == 1
  local kind, rest = match(plain_type and given:lower() or "", "^%s*([^;%s]*)%s*(.*)$")
  if kind ~= "application/json" or not (rest == "" or match(rest, '^;%s*charset="?utf%-8"?%s*$')) then
    refuse_field("content-type", "CONTENT_TYPE_UNSUPPORTED", "content_type", "has to be application/json")
  end
  local encoding = headers:get("content-encoding")
  if encoding and encoding:lower() ~= "identity" then
    refuse_field("content-encoding", "CONTENT_TYPE_UNSUPPORTED", "content_encoding", "has to be absent; bodies come as they are")
  end
end

local function check_length(headers)
  local length = headers:get("content-length")
  if length and (tonumber(length) or 0) > BODY_BYTES_MAX then
    refuse_field("body", "MESSAGE_TOO_LARGE", "body_bytes", "is longer than " .. BODY_BYTES_MAX .. " bytes")
  end
end

local function check_rest(route, query, document)
  path_count = 0
  if not route.b then
    if document ~= "" then refuse_field("body", JSON, "json.body.forbidden", "is not taken by this method") end
  elseif route.b == "*" then
    if query then refuse_field(match(query, "^[^=&]*"), UNKNOWN, "query.known", "is no parameter; the method takes a body only") end
    check_document(document, MESSAGES[route.i], nil, route.p)
  else
    check_document(document, nil, MESSAGES[route.i].f[route.b], route.p and route.p[route.b])
  end
  if query then check_query(query, route) end
end

local function rest(handle, headers, location, query)
  local fine, routes = pcall(routes_of, location)
  if not fine then return answer(handle, routes) end
  if not routes then return handle:respond({[":status"] = "404"}, "") end
  local route = routes[headers:get(":method")]
  if not route then
    local refusal = {reason = "METHOD_NOT_ALLOWED", answer_reason = "METHOD_NOT_FOUND", code = 12, field = "method"}
    refusal.description = "is not one of this path, see the header allow"
    return answer(handle, refusal, routes.allow)
  end
  local refusal
  if route.b then
    fine, refusal = pcall(check_content_type, headers)
    if not fine then return answer(handle, refusal) end
  end
  fine, refusal = pcall(check_length, headers)
  if not fine then return answer(handle, refusal) end
  local body = handle:body()
  local length = body and body:length() or 0
  fine, refusal = pcall(check_rest, route, query, length > 0 and body:getBytes(0, length) or "")
  if not fine then
    -- A defect here must refuse; words without a reason are one.
    if type(refusal) ~= "table" then
      handle:logErr("strict JSON: " .. tostring(refusal))
      return handle:respond({[":status"] = "500"}, "")
    end
    return answer(handle, refusal)
  end
  -- Asked for again: waiting for the body has invalidated the old object.
  handle:headers():replace(METHOD_HEADER, route.m)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  if headers:getNumValues("authorization") > 1 then return handle:respond({[":status"] = "401"}, "") end
  local target = headers:get(":path") or ""
  local content_type = headers:get("content-type")
  if content_type and sub(content_type, 1, 16) == "application/grpc" then
    if not GRPC[target] then return handle:respond({[":status"] = "404"}, "") end
    headers:replace(METHOD_HEADER, target)
    return
  end
  local location, query = match(target, "^([^?]*)%??(.*)$")
  if PASSED[location] then return end
  rest(handle, headers, location, find(target, "?", 1, true) and query or nil)
end
