-- The ship's own pages: who sees them, and for how long.

local front = require "front"
local guard = require "guard"
local pages = require "pages"
local quick = require "quick"

local state = ngx.shared.starphleet_state

local M = {}

local OWN, LEFT = "starphleet", "\1left"
local SHORT = 5 -- seconds that a page may take

-- Whether a page of somebody else's asks by way of the browser of who is in. It may lead here, no
-- more: what it may open is not to be read by it, what it may send is not to be done.
local function foreign(headers)
    local site, origin = headers["sec-fetch-site"], headers["origin"]
    if site and site ~= "same-origin" and site ~= "none" then
        return ngx.req.get_method() ~= "GET" or headers["sec-fetch-mode"] ~= "navigate"
            or headers["sec-fetch-dest"] ~= "document"
    end
    return origin ~= nil and origin ~= ngx.var[quick.scheme] .. "://" .. ngx.var.sp_host
end

local function answered(page)
    page()
    ngx.exit(ngx.HTTP_OK)
end

-- Without any of these nobody is let in, and there need not be a checker yet.
local function has_a_pass()
    local var = ngx.var
    return (var.http_cookie or ""):find("starphleet_session=", 1, true)
        or (var.args or ""):find("starphleet_link=", 1, true)
end

-- A program's own token is for the site itself to look at: it sees that nobody was let in here.
local function by_token(headers)
    local said = headers["authorization"]
    return type(said) == "string" and said:lower():find("^bearer ") ~= nil
end

-- Access phase of a page.
function M.enter(tokens)
    local logins = front.strip(OWN)
    local headers = ngx.req.get_headers(0)
    if tokens and by_token(headers) then return front.keep_session() end
    if foreign(headers) then return answered(pages.foreign) end
    if not has_a_pass() then return answered(pages.knock) end
    ngx.ctx.left = state:get(LEFT) or 0
    local yes = guard.ask(OWN, logins, ngx.req.get_method() == "POST")
    front.keep_session()
    guard.let_in(yes)
    for _, header in ipairs(yes.passes) do
        if header[1] == "x-identity" then ngx.var.sp_owner = header[2] end
    end
end

-- Access phase of where one leaves.
function M.leave()
    if ngx.req.get_method() == "POST" then return M.enter() end
    answered(pages.leave)
end

-- Nothing more is sent to whose key is gone meanwhile, and others ask again; but what is not a
-- stream ends by itself.
function M.pass()
    local began = ngx.ctx.left
    if began and began ~= (state:get(LEFT) or 0)
        and ngx.now() - ngx.req.start_time() > SHORT then
        return ngx.ERROR
    end
end

function M.cut_off()
    return state:incr(LEFT, 1, 0)
end

return M
